"""The report as it is printed."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console, RenderableType

from mnist_tuner.render import comparison as comparison_console
from mnist_tuner.render import run as rendering
from mnist_tuner.render import search as search_console
from mnist_tuner.reports.comparison import Comparison, ComparisonReport, Contestant
from mnist_tuner.reports.report import ClassificationReport, DataSummary, RunReport, Timing, classification_report
from mnist_tuner.reports.search import SearchReport, units_of
from mnist_tuner.reports.statistics import Estimate
from mnist_tuner.search.trial import score_text
from tests.support import samples

HALF_BLOCK = "\N{UPPER HALF BLOCK}"


def judged(classes: int = 10, total: int = 10_000, accuracy: float = 0.9) -> ClassificationReport:
    """The report of random predictions."""
    generator = np.random.default_rng(classes)
    labels = generator.permutation(np.arange(total) % classes)
    predicted = np.where(generator.random(total) < accuracy, labels, generator.integers(0, classes, total))
    return classification_report(labels, predicted, generator.random(total), classes, loss=0.0821)


def ended(test: ClassificationReport | None = None) -> RunReport:
    """A run that came to this."""
    config = {"hidden": (100, 50), "epochs": 5, "batch_size": 32, "learning_rate": 0.001}
    return RunReport("train", "finished", "runs/1", 7, config, "CPU (4 cores)", 1, {}, test=test or judged())


def printed(renderable: RenderableType, width: int = 80) -> list[str]:
    """The lines that a colour terminal of this width shows, as bare text."""
    console = Console(file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor")
    console.print(renderable)
    return console.export_text(styles=False).splitlines()


def printed_in_ascii(renderable: RenderableType, width: int = 80) -> str:
    """What reaches a file that can hold ASCII only."""
    content = io.BytesIO()
    file = io.TextIOWrapper(content, encoding="ascii")
    Console(file=file, width=width, force_terminal=False).print(renderable)
    file.flush()
    return content.getvalue().decode("ascii")


def words(lines: list[str]) -> str:
    """The text with single spaces, and one before and after each line."""
    return " " + " ".join(" ".join(lines).split()) + " "


@pytest.fixture
def run() -> RunReport:
    return RunReport(
        command="train",
        status="running",
        run_dir="runs/1",
        seed=7,
        config={"hidden": (100, 50), "epochs": 5, "batch_size": 32, "learning_rate": 0.001},
        device="CPU (4 cores)",
        threads=1,
        versions={},
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("classes", [2, 3, 10, 26])
def test_no_line_is_longer_than_the_console_is_wide(width: int, classes: int) -> None:
    assert max(map(len, printed(rendering.test_report(ended(judged(classes))), width))) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_of_the_report_is_shown(width: int) -> None:
    report = judged()
    lines = printed(rendering.test_report(ended(report)), width)
    text = words(lines)
    assert report.wilson95 is not None
    low, high = report.wilson95
    assert f"Test accuracy {report.accuracy:.2%} {report.correct:,} of 10,000" in text
    assert f"{low * 100:.2f} to {high * 100:.2f} %" in text
    assert "loss 0.0821" in text
    rows = [words([line]) for line in lines]
    for score in report.classes:
        shown = f" {score.label} {score.support:,} {score.precision:.4f} {score.recall:.4f} {score.f1:.4f} "
        assert any(shown in row for row in rows)
    for label, counts in enumerate(report.matrix):
        assert any(row.endswith(f" {label} {' '.join(map(str, counts))} ") for row in rows)
    for pair in report.confusions:
        assert re.search(rf" {pair.label} (read )?as {pair.predicted} \({pair.count}\)", text)


def test_a_wide_console_has_the_table_and_the_matrix_side_by_side() -> None:
    narrow, wide = (len(printed(rendering.test_report(ended()), width)) for width in (80, 120))
    assert wide < narrow - 10


def test_a_zero_is_shown_as_a_dot() -> None:
    report = classification_report(np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2]), np.ones(4), 3, loss=0.1)
    dotted = [" 0 1 · 1 ", " 1 · 1 · ", " 2 · · 1 "]
    rows = [words([line]) for line in printed(rendering.test_report(ended(report)))]
    in_ascii = [words([line]) for line in printed_in_ascii(rendering.test_report(ended(report))).splitlines()]
    for expected in dotted:
        assert any(row.endswith(expected) for row in rows)
        assert any(row.endswith(expected.replace("·", ".")) for row in in_ascii)


def test_a_zero_on_the_diagonal_stays_a_zero() -> None:
    report = classification_report(np.array([0, 1]), np.array([0, 0]), np.ones(2), 2, loss=0.1)
    rows = [words([line]) for line in printed(rendering.test_report(ended(report)))]
    assert any(row.endswith(" 1 1 0 ") for row in rows)


@pytest.mark.parametrize("total", [36, 10_000])
def test_the_matrixs_columns_are_headed_by_their_classes(total: int) -> None:
    lines = printed(rendering.test_report(ended(judged(classes=12, total=total))), width=140)
    assert any(words([line]).endswith(f" {' '.join(map(str, range(12)))} ") for line in lines)


@pytest.mark.parametrize("width", [30, 80, 120])
def test_an_ascii_console_gets_ascii_only(width: int) -> None:
    text = printed_in_ascii(rendering.test_report(ended(judged(accuracy=0.999))), width)
    assert max(map(len, text.splitlines())) <= width


def test_an_ascii_console_gets_no_half_blocks_when_images_are_given() -> None:
    images = np.zeros((24, 8, 8), np.uint8)
    assert "Test accuracy" in printed_in_ascii(rendering.test_report(ended(), images))


def test_an_ascii_console_is_not_left_with_a_heading_that_has_nothing_under_it() -> None:
    report = judged()
    text = printed_in_ascii(rendering.test_report(ended(report), np.ones((24, 8, 8), np.uint8)))
    worst = report.mistakes[0]
    assert ("Most confident mistakes" in text) == (f"{worst.label} read as {worst.predicted}, " in text)


def test_47_classes_fit_into_80_columns() -> None:
    report = judged(classes=47)
    lines = printed(rendering.test_report(ended(report)), width=80)
    assert max(map(len, lines)) <= 80
    assert "47 x 47 classes are too wide for this console." in words(lines)
    rows = [words([line]) for line in lines]
    for score in report.classes:
        assert any(row.startswith(f" {score.label} {score.support:,} {score.precision:.4f} ") for row in rows)


def test_of_very_many_classes_the_20_worst_are_listed() -> None:
    report = judged(classes=60, total=3_000)
    lines = printed(rendering.test_report(ended(report)))
    assert "The 20 classes with the lowest F1" in words(lines)
    shown = [int(line.split()[0]) for line in lines if len(line.split()) == 5 and line.split()[0].isdigit()]
    worst = sorted(report.classes, key=lambda score: score.f1)[:20]
    assert shown == [score.label for score in worst]


@pytest.mark.parametrize("shape", [(28, 28), (7, 5), (100, 60), (1, 1)])
@pytest.mark.parametrize("width", [20, 80, 102, 120])
def test_the_most_confident_mistakes_are_drawn_within_the_width(shape: tuple[int, int], width: int) -> None:
    report = judged()
    images = np.random.default_rng(0).integers(0, 256, (24, *shape), dtype=np.uint8)
    lines = printed(rendering.test_report(ended(report), images), width)
    assert max(map(len, lines)) <= width
    assert any(HALF_BLOCK in line for line in lines)


def test_each_drawn_mistake_has_its_caption() -> None:
    report = judged()
    text = words(printed(rendering.test_report(ended(report), np.ones((24, 28, 28), np.uint8))))
    assert len(report.mistakes) == 24
    assert len(re.findall(r" \d read as \d, ", text)) == 6
    for mistake in report.mistakes[:6]:
        captions = re.findall(rf" {mistake.label} read as {mistake.predicted}, ([\d.]+)%", text)
        assert any(float(percent) == pytest.approx(100 * mistake.confidence, abs=0.051) for percent in captions)


def test_the_pixels_are_drawn_in_their_greys() -> None:
    images = np.zeros((24, 6, 6), np.uint8)
    images[:, 1:5, 1:5] = np.arange(16).reshape(4, 4) * 16 + 15
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="truecolor", no_color=False)
    console.print(rendering.test_report(ended(), images))
    for grey in range(15, 256, 16):
        assert f"8;2;{grey};{grey};{grey}" in file.getvalue()


def test_blank_images_are_drawn_too() -> None:
    lines = printed(rendering.test_report(ended(), np.zeros((24, 28, 28), np.uint8)))
    assert any(HALF_BLOCK in line for line in lines)


def test_without_images_or_without_mistakes_nothing_is_drawn() -> None:
    faultless = judged(accuracy=1.0)
    for report, images in ((judged(), None), (faultless, np.ones((24, 28, 28), np.uint8))):
        text = words(printed(rendering.test_report(ended(report), images)))
        assert HALF_BLOCK not in text
        assert "mistakes" not in text
    assert "Most confused" not in words(printed(rendering.test_report(ended(faultless))))


def test_the_setting_says_what_is_run_on_what(run: RunReport) -> None:
    lines = printed(rendering.setting(run, DataSummary("MNIST", 54_000, 6_000, 10_000, (28, 28), 10, {})))
    text = words(lines)
    assert max(map(len, lines)) <= 80
    for part in (
        "CPU (4 cores), 1 thread ",
        "MNIST: 54,000 training, 6,000 validation, 10,000 test images, 28 x 28, 10 classes",
        "100 - 50",
        "5 epochs, batch size 32",
        "learning rate 0.001",
        "seed 7",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["digits [v2]", "digits[bold]", "digits:tiger:"])
def test_the_setting_shows_the_datas_name_as_it_is(run: RunReport, name: str) -> None:
    text = words(printed(rendering.setting(run, DataSummary(name, 90, 0, 30, (7, 5), 3, {}))))
    assert f"{name}: 90 training, 30 test images, 7 x 5, 3 classes" in text


def test_the_headline_names_the_versions() -> None:
    versions = {"mnist_tuner": "1.2.3", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4", "python": "3.12.1"}
    text = words(printed(rendering.headline(versions)))
    assert text == " mnist_tuner 1.2.3 TensorFlow 2.21.0 Keras 3.15.1 Python 3.12.1 "


def test_the_timing_line_says_where_the_time_went() -> None:
    timing = Timing(import_s=2.0, data_s=0.5, compile_s=0.8, fit_s=3.0, test_s=0.3, total_s=6.1)
    text = words(printed(rendering.timing_line(timing), width=120))
    for part in ("6.1 s", "import 2.0", "data 0.5", "compile 0.8", "train 2.2", "test 0.3"):
        assert part in text


def test_the_epochs_are_listed_with_their_metrics() -> None:
    epochs = [{"epoch": 1.0, "loss": 0.25, "seconds": 1.5}, {"epoch": 2.0, "loss": 0.125, "seconds": 1.25}]
    rows = [words([line]) for line in printed(rendering.epoch_table(epochs))]
    assert [row for row in rows if row in (" epoch loss seconds ", " 1 0.2500 1.5 ", " 2 0.1250 1.25 ")] == [
        " epoch loss seconds ",
        " 1 0.2500 1.5 ",
        " 2 0.1250 1.25 ",
    ]


def test_a_terminal_without_colours_gets_no_pictures() -> None:
    file = io.StringIO()
    images = np.full((24, 28, 28), 255, np.uint8)
    Console(file=file, width=80, force_terminal=True, color_system=None).print(rendering.test_report(ended(), images))
    assert HALF_BLOCK not in file.getvalue()
    assert "Most confident" not in file.getvalue()


def parts_of(report: RunReport | SearchReport | ComparisonReport) -> list[RenderableType]:
    """All that the console shows of it."""
    match report:
        case RunReport():
            images = samples.pictures(report.test)
            return [*rendering.heading(report), *rendering.result(report, images, epochs=True)]
        case SearchReport():
            return [*search_console.heading(report), *search_console.result(report)]
        case ComparisonReport():
            return comparison_console.result(report)


def numbers_of(report: RunReport | SearchReport | ComparisonReport) -> list[str]:
    """What has to stand there."""
    match report:
        case RunReport():
            assert report.test is not None
            assert report.accuracy is not None
            assert report.timing is not None
            wanted = [f"Test accuracy {report.accuracy.value:.2%}", limits(report.accuracy), f"{report.timing.total_s:.1f} s"]
            wanted += [
                f"{score.label} {score.support:,} {score.precision:.4f} {score.recall:.4f}" for score in report.test.classes
            ]
            wanted += [f"{each['epoch']} {each['loss']:.4f} {each['accuracy']:.4f}" for each in report.epochs]
            if report.seeds is not None:
                wanted += [f"{each.seed} {each.accuracy:.2%} {each.loss:.4f}" for each in report.seeds.trainings]
                wanted += [f"mean of {len(report.seeds.trainings)} seeds", f"{100 * report.seeds.sd:.2f} points"]
            return wanted
        case SearchReport():
            assert report.comparison is not None
            assert report.selection is not None
            assert report.recommended is not None
            wanted = [score_text(each.mean, each.sd) for each in report.trials if each.completed]
            wanted += [f"{each.trial_id} {' '.join(map(str, units_of(each)))}" for each in report.trials]
            wanted += [f"about {report.selection.luck:.4f}", f"({report.selection.standard_error:.4f})"]
            wanted += ["-".join(map(str, units_of(report.recommended))), str(report.verdict), report.comparison.outlook]
            for net in (report.winner, report.baseline):
                assert net is not None
                wanted += contestant_numbers(net)
            return [*wanted, report.advice or ""]
        case ComparisonReport():
            wanted = [report.verdict, report.outlook, f"{report.images:,} test images"]
            for net in report.contestants:
                wanted += contestant_numbers(net, each=False)
            return wanted + [text for each in report.comparisons for text in comparison_numbers(each)]


def limits(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f} %"


def contestant_numbers(net: Contestant, *, each: bool = True) -> list[str]:
    sd = [] if net.sd is None else [f" {net.sd:.2%} "]
    seeds = [f"{accuracy:.2%}" for accuracy in net.accuracies] if each else []
    return [net.name, f"{net.parameters:,}", f"{net.accuracy.value:.2%}", limits(net.accuracy), *sd, *seeds]


def comparison_numbers(comparison: Comparison) -> list[str]:
    difference = comparison.difference
    limits = f"({100 * difference.low:.2f} to {100 * difference.high:.2f})"
    numbers = [comparison.first, comparison.second, f"{100 * difference.value:+.2f} points {limits}"]
    if comparison.p is not None:
        numbers += [f"McNemar's p = {comparison.p:.3g}", f"{comparison.only_first:,} images", f"{comparison.only_second:,} only"]
    return numbers


REPORTS = {
    "a run": lambda: samples.run(),
    "several seeds": lambda: samples.seeds(5),
    "a search that has found something": lambda: samples.search(30),
    "a search that has found nothing": lambda: samples.search(30, 3, 0.0),
    "two runs of one seed": lambda: samples.comparison(2, 1),
    "two runs of five seeds": lambda: samples.comparison(2, 5),
    "four runs": lambda: samples.comparison(4, 3),
}


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [80, 120])
def test_every_report_fits_the_console_with_all_its_numbers(name: str, width: int) -> None:
    report = REPORTS[name]()
    in_utf8 = [line for part in parts_of(report) for line in printed(part, width)]
    in_ascii = "\n".join(printed_in_ascii(part, width) for part in parts_of(report)).splitlines()  # it encodes, or this fails
    for lines in (in_utf8, in_ascii):
        assert max(map(len, lines)) <= width
        text = words([line.replace("|", " ") for line in lines])  # which part the columns in ASCII
        for number in numbers_of(report):
            assert " ".join(number.split()) in text, number


@pytest.mark.parametrize("name", REPORTS)
def test_no_report_says_nan_or_none(name: str) -> None:
    text = words([line for part in parts_of(REPORTS[name]()) for line in printed(part)])
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_a_run_that_was_interrupted_says_so_and_shows_how_far_it_came() -> None:
    report = replace(samples.run(), status="interrupted", epochs=samples.run().epochs[:2], test=None, timing=None)
    text = words([line for part in parts_of(report) for line in printed(part)])
    assert "The run is interrupted" in text
    assert f"2 {report.epochs[1]['loss']:.4f}" in text
    assert "Test accuracy" not in text
    text = words([line for part in parts_of(replace(report, status="failed", error="no [bold] disk")) for line in printed(part)])
    assert "The run is failed: no [bold] disk" in text


def test_workers_that_differ_or_were_refused_are_said_above_a_search() -> None:
    report = samples.search(10)
    on_a_cluster = replace(report, config={**report.config, "scheduler": "tcp://a:1"}, worker_info=samples.WORKERS)
    shown = words(printed(search_console.setting(on_a_cluster), 200))
    kinds = "1 x A processor, avx2; 1 x Another, avx512f: last bits may differ between them"
    assert f"Workers {kinds}; 1 refused (run.json says why)" in shown
    alike = replace(on_a_cluster, worker_info=samples.WORKERS[:1] * 2)
    assert "Workers" not in words(printed(search_console.setting(alike), 200))


def test_a_search_that_was_interrupted_shows_its_trials_and_no_comparison() -> None:
    report = samples.unjudged_search(10)
    text = words([line for part in parts_of(report) for line in printed(part)])
    assert "The search is interrupted" in text
    assert "The choice, by validation images" in text
    assert "test accuracy" not in text
    for trial in report.trials:
        assert score_text(trial.mean, trial.sd, len(trial.scores)) in text


def test_a_search_of_one_replicate_tells_nothing_of_luck() -> None:
    text = words([line for part in parts_of(samples.search(10, 1)) for line in printed(part)])
    assert "nobody can tell how much of that is luck" in text
    assert "standard error" not in text


def test_the_verdicts_of_single_trainings_come_with_the_warning_that_another_may_turn_out_otherwise() -> None:
    text = words([line for part in parts_of(samples.comparison(2, 1)) for line in printed(part)])
    assert "This does not say which net is better" in text
    several = words([line for part in parts_of(samples.comparison(4, 3)) for line in printed(part)])
    assert "All these intervals hold together with 95 %" in several
