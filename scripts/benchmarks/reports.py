"""What reports cost: of a search of a hundred trials, and at the end of a training."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import child, medians, spread

TRIALS = 100


def made_up_search(folder: Path) -> Any:
    """The report of a search of 100 trials with 3 replicates, of random numbers."""
    from mnist_tuner.config import SearchConfig
    from mnist_tuner.reports.comparison import compare, contestant
    from mnist_tuner.reports.report import DataSummary, classification_report
    from mnist_tuner.reports.search import Curve, SearchReport, SearchTiming
    from mnist_tuner.search.trial import TrialSummary

    generator = np.random.default_rng(0)
    widths = [(100, 100), *((int(a) * 32, int(b) * 32) for a, b in generator.integers(1, 17, (TRIALS - 1, 2)))]
    trials = tuple(
        TrialSummary(
            trial_id=f"{number:02}",
            values={"units_1": a, "units_2": b},
            status="completed",
            seeds=(3 * number, 3 * number + 1, 3 * number + 2),
            scores=tuple(0.976 + 0.002 * float(score) for score in generator.normal(a / 512, 1, 3)),
            epochs=5,
            parameters=785 * a + (a + 1) * b + (b + 1) * 10,
            seconds=12.0,
            worker="",
            reason=None,
        )
        for number, (a, b) in enumerate(widths)
    )
    labels = generator.integers(0, 10, 10_000).astype(np.uint8)
    ease = generator.uniform(0.91, 1.05, 10_000)
    read = generator.uniform(size=(2, 5, 10_000)) < ease
    predicted = np.where(read, labels, (labels + generator.integers(1, 10, read.shape)) % 10).astype(np.uint8)
    nets = [
        contestant(name, units, 100_000, tuple(range(5)), labels, each)
        for name, units, each in zip(("384-224", "100-100"), ((384, 224), (100, 100)), predicted, strict=True)
    ]
    rising = tuple(tuple(0.97 + 0.002 * epoch + 0.001 * replicate for epoch in range(5)) for replicate in range(3))
    config = SearchConfig(trials=TRIALS)
    return SearchReport(
        status="finished",
        run_dir=str(folder),
        seed=0,
        config=config.to_dict(),
        device="CPU",
        workers=2,
        versions=dict.fromkeys(("mnist_tuner", "tensorflow", "keras", "python"), "1"),
        space=[],
        total=TRIALS,
        data=DataSummary("MNIST", 54_000, 6_000, 10_000, (28, 28), 10, {}),
        trials=trials,
        curves=tuple(Curve(name, (1, 2, 3, 4, 5), rising) for name in ("00", "01", "02")),
        baseline=nets[1],
        winner=nets[0],
        comparison=compare(("384-224", "100-100"), labels, (predicted[0], predicted[1])),
        test=classification_report(labels, predicted[0], generator.uniform(0.5, 1, predicted[0].shape), 10, 0.1),
        timing=SearchTiming(2.0, 100.0, 20.0, 122.0, 6.0),
    )


def large_report() -> dict[str, float]:
    """Seconds to read that report, to print it, and to write its page and figures, after the imports."""
    from rich.console import Console

    import mnist_tuner.render.figures
    import mnist_tuner.render.html  # noqa: F401
    from mnist_tuner.render import search as search_console
    from mnist_tuner.render.page import write_page
    from mnist_tuner.reports.stored import load_report
    from mnist_tuner.runs import to_json

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up = made_up_search(folder)
        (folder / "run.json").write_text(to_json(made_up.to_dict()))
        began = time.perf_counter()
        report = load_report(folder)
        read = time.perf_counter()
        console = Console(file=io.StringIO(), width=100, force_terminal=True)
        for part in [*search_console.heading(report), *search_console.result(report)]:
            console.print(part)
        printed = time.perf_counter()
        mistakes = np.zeros((24, 28, 28), np.uint8)
        write_page(report, mistakes, "mnist-tuner search", folder / "report.html", folder / "figures")
        written = time.perf_counter()
        size = (folder / "report.html").stat().st_size
    assert to_json(report.to_dict()) == to_json(made_up.to_dict())
    return {"read_s": read - began, "console_s": printed - read, "html_s": written - printed, "html_mb": size / 1e6}


def training() -> dict[str, float]:
    """Seconds of the train command in this process."""
    from rich.console import Console

    from mnist_tuner.config import TrainConfig
    from mnist_tuner.runner import train

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(TrainConfig(output=Path(folder)), Console(file=io.StringIO()))
        return {"seconds": time.perf_counter() - began}


def training_without_page() -> dict[str, float]:
    """The same without its page and figures."""
    from mnist_tuner.render import page

    page.load_drawing = lambda: None  # before the runner has taken them from there
    page.keep_page = lambda *_: None
    return training()


def report(repeats: int) -> dict[str, Any]:
    """What reports cost: of a search of 100 trials, and at the end of a training."""
    large = medians([child(large_report) for _ in range(repeats)])
    print(
        f"A search of {TRIALS} trials: read in {large['read_s']:.2f} s, printed in {large['console_s']:.2f} s, page and figures "
        f"written in {large['html_s']:.1f} s ({large['html_mb']:.1f} MB), after the imports."
    )
    pairs = [(child(training)["seconds"], child(training_without_page)["seconds"]) for _ in range(repeats)]
    cost = [with_page - without for with_page, without in pairs]
    print(f"train with its page takes longer than without by {spread(cost, '.2f', ' s')}.")
    names = ("read_s", "console_s", "html_s", "html_mb")
    return {"search_of_100_trials": {name: large[name] for name in names}, "page_of_train_s": cost}
