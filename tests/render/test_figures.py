"""Figures of reports, whole and partial."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from mnist_tuner.render.drawing import PALETTE, Drawing, save, to_svg
from mnist_tuner.render.figures import draw
from mnist_tuner.reports.report import RunReport
from tests.support import samples

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"
REPORTS = {
    "run": (samples.run, ["learning-curves", "confusion-matrix"]),
    "seeds": (samples.seeds, ["learning-curves", "confusion-matrix", "seed-accuracies"]),
    "search": (
        samples.search,
        ["learning-curves", "accuracy-by-parameters", "width-map", "trials-in-order", "test-accuracies", "confusion-matrix"],
    ),
    "interrupted": (samples.unjudged_search, ["learning-curves", "accuracy-by-parameters", "width-map", "trials-in-order"]),
    "comparison": (samples.comparison, ["accuracies", "differences"]),
}


def drawn(report: Any) -> dict[str, Drawing]:
    """The report's figures by name, each of which can be made into everything."""
    drawings = draw(report)
    for drawing in drawings:
        ET.fromstring(to_svg(drawing))
        assert drawing.png.startswith(b"\x89PNG")
    return {drawing.name: drawing for drawing in drawings}


def text_of(drawing: Drawing) -> list[str]:
    """What is written in a figure on the page."""
    return ["".join(element.itertext()) for element in ET.fromstring(to_svg(drawing)).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_has_its_figures(name: str) -> None:
    report, expected = REPORTS[name]
    assert list(drawn(report())) == expected


@pytest.mark.parametrize("name", REPORTS)
def test_figures_are_equal_for_equal_reports(name: str) -> None:
    report = REPORTS[name][0]()
    first, second = draw(report), draw(report)
    assert [to_svg(each) for each in first] == [to_svg(each) for each in second]
    assert [each.png for each in first] == [each.png for each in second]


def test_the_description_has_the_main_numbers() -> None:
    run, found = samples.seeds(), drawn(samples.seeds())
    assert run.seeds is not None
    assert run.test is not None
    mean = np.mean([training.epochs[-1]["val_accuracy"] for training in run.seeds.trainings])
    assert f"validation accuracy {mean:.4f} after epoch 5" in found["learning-curves"].alt
    assert f"{run.test.correct:,} of {run.test.total:,}" in found["confusion-matrix"].alt
    worst = run.test.confusions[0]
    assert f"{worst.label} read as {worst.predicted} ({worst.count:,})" in found["confusion-matrix"].alt
    low, high = run.seeds.mean.low, run.seeds.mean.high
    assert f"{run.seeds.mean.value:.2%} ({100 * low:.2f} to {100 * high:.2f} %)" in found["seed-accuracies"].alt


def test_the_best_the_recommended_and_the_baseline_are_named() -> None:
    report, found = samples.search(), drawn(samples.search())
    for trial, role in ((report.best, "best"), (report.recommended, "recommended"), (report.first, "baseline")):
        assert trial is not None
        name = f"{role} {trial.values['units_1']}-{trial.values['units_2']}"
        for figure in ("learning-curves", "accuracy-by-parameters", "width-map"):
            assert name in text_of(found[figure])
            assert name in found[figure].alt


def test_one_trial_may_be_best_and_recommended_and_the_baseline() -> None:
    report = samples.with_curves(replace(samples.unjudged_search(), trials=samples.trials(1)))
    assert "best, recommended, baseline 100-100" in text_of(drawn(report)["width-map"])


def test_counts_are_written_into_the_matrix_while_there_is_room() -> None:
    run = samples.run()
    assert run.test is not None
    written = text_of(drawn(run)["confusion-matrix"])
    assert written.count(str(run.test.matrix[3][3])) >= 1
    assert len(text_of(drawn(samples.run(classes=26))["confusion-matrix"])) < 80


@pytest.mark.parametrize("classes", [2, 3, 20, 26, 62, 256])
def test_any_number_of_classes_can_be_drawn(classes: int) -> None:
    drawing = drawn(samples.run(classes=classes))["confusion-matrix"]
    assert len(to_svg(drawing)) < 500_000


def test_a_faultless_net_has_a_matrix_too() -> None:
    labels = samples.truth()
    run = replace(samples.run(), test=samples.test_of(labels, labels))
    assert "no mistakes" in drawn(run)["confusion-matrix"].alt


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": ()},
        {"test": None},
        {"epochs": samples.epochs_of(1)},
        {"epochs": samples.epochs_of(2, validation=False)},
        {"epochs": samples.epochs_of(400)},
        {"epochs": ({"epoch": 1, "loss": None, "accuracy": 0.1, "seconds": 1.0},)},
        {"epochs": ({"epoch": 1, "loss": None, "accuracy": None}, {"epoch": 2, "loss": float("inf"), "accuracy": float("nan")})},
        {"epochs": (*samples.epochs_of(2), {"epoch": 3, "loss": None, "accuracy": None, "val_loss": None, "val_accuracy": None})},
        {"status": "interrupted", "epochs": (), "test": None, "data": None, "timing": None, "parameters": None},
    ],
)
def test_a_run_that_came_only_so_far_has_the_figures_it_can_have(changes: dict[str, Any]) -> None:
    run: RunReport = replace(samples.run(), **changes)
    found = drawn(run)
    finite = any(value is not None and np.isfinite(value) for epoch in run.epochs for value in epoch.values())
    assert ("confusion-matrix" in found) == (run.test is not None)
    if not run.epochs or not finite:
        assert "learning-curves" not in found


def test_seeds_may_have_ended_after_different_epochs() -> None:
    run = samples.seeds()
    assert run.seeds is not None
    trainings = tuple(
        replace(each, epochs=samples.epochs_of(count)) for each, count in zip(run.seeds.trainings, (1, 5, 3, 0, 2), strict=True)
    )
    run = replace(run, seeds=replace(run.seeds, trainings=trainings))
    assert "after epoch 5" in drawn(run)["learning-curves"].alt


def test_a_search_survives_whatever_its_trials_came_to() -> None:
    report = samples.unjudged_search()
    failed = tuple(samples.trial(i, (32 * i, 64), ()) for i in range(3))
    assert not drawn(replace(report, trials=failed, curves=()))
    assert not drawn(replace(report, trials=(), curves=()))
    diverged = (*samples.trials(20), samples.trial(20, (512, 512), (0.098, 0.1, 0.102)))
    found = drawn(replace(report, trials=diverged))
    assert "1 far below is not shown" in found["trials-in-order"].note
    single = drawn(samples.with_curves(replace(report, trials=samples.trials(30, replicates=1))))
    assert not any("one standard error" in text for text in text_of(single["accuracy-by-parameters"]))
    equal = tuple(samples.trial(i, (100, 100 + i), (0.97, 0.97, 0.97)) for i in range(4))
    assert "width-map" in drawn(replace(report, trials=equal))
    unknown = tuple(replace(trial, parameters=None) for trial in samples.trials(4))
    assert "accuracy-by-parameters" not in drawn(replace(report, trials=unknown))


def test_of_hyperbands_trials_with_equal_widths_the_longest_counts_on_the_map() -> None:
    trials = [samples.trial(0, (100, 100), (0.97, 0.98))]
    for number, epochs, score in ((1, 2, 0.91), (2, 5, 0.96), (3, 1, 0.90)):
        values = {"units_1": 64, "units_2": 96, "tuner/epochs": epochs}
        trials.append(samples.trial(number, (64, 96), (score, score), epochs=epochs, values=values))
    report = samples.with_curves(replace(samples.unjudged_search(), trials=tuple(trials)))
    assert "of 2 pairs of widths, from 0.9600 to 0.9750" in drawn(report)["width-map"].alt


def test_ten_thousand_trials_make_small_figures() -> None:
    config = {**samples.unjudged_search().config, "widths": (32, 512, 2)}
    report = replace(samples.unjudged_search(), trials=samples.trials(10_000, step=2), config=config)
    assert sum(len(to_svg(drawing)) for drawing in draw(report)) < 1_500_000


def test_many_runs_are_cut_with_a_note() -> None:
    found = drawn(samples.comparison(nets=11, trainings=2))
    assert "the first 40 of 55" in found["differences"].note
    assert "the first" not in found["accuracies"].note


@pytest.mark.parametrize(
    "name", [samples.HOSTILE, "x" * 300, "$", "$a_b$ \\frac", "\x1b[31m\x00\x07", "数字 😀 א", "a\nb", "%s {} {0}", ""]
)
def test_no_name_of_a_run_breaks_a_figure(name: str, tmp_path: Path) -> None:
    found = drawn(samples.comparison(2, 2, (name, f"{name}2")))
    save(list(found.values()), tmp_path)
    for drawing in found.values():
        content = (tmp_path / f"{drawing.name}.svg").read_text()
        root = ET.fromstring(content)
        assert "<script" not in content
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
            "svg",
            "g",
            "path",
            "text",
            "defs",
            "clipPath",
            "rect",
            "use",
        }
        assert root.get("aria-label") == "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in drawing.alt)


def test_a_name_is_written_as_it_is() -> None:
    assert "a $b$ <c> & minus d #1b2027" in text_of(drawn(samples.comparison(2, 2, ("d #1b2027", "a $b$ <c> &")))["differences"])


@pytest.mark.parametrize("name", REPORTS)
def test_on_the_page_colours_are_the_pages_and_ids_unique(name: str) -> None:
    drawings = draw(REPORTS[name][0]())
    svgs = [to_svg(drawing) for drawing in drawings]
    ids = [found for svg in svgs for found in re.findall(r'\bid="([^"]*)"', svg)]
    assert len(ids) == len(set(ids))
    for drawing, svg in zip(drawings, svgs, strict=True):
        root = ET.fromstring(svg)
        for element in root.iter():
            assert not re.search(r"#[0-9a-fA-F]{3,8}\b", element.get("style") or "")
        assert set(re.findall(r"var\(--([\w-]+)\)", svg)) <= set(PALETTE)
        for reference in re.findall(r'(?:href="|url\()#([^")]*)', svg):
            assert reference in ids
        assert root.get("role") == "img"
        assert root.get("aria-label") == drawing.alt
        assert root.get("viewBox")
        assert not {"width", "height"} & set(root.keys())
        assert drawing.title not in ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
        assert "DejaVu" not in svg


def test_figures_are_saved_as_png_and_svg(tmp_path: Path) -> None:
    save(draw(samples.run()), tmp_path)
    names = {"learning-curves.png", "learning-curves.svg", "confusion-matrix.png", "confusion-matrix.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    content = (tmp_path / "learning-curves.svg").read_text()
    assert "Learning curves" in content
    assert PALETTE["ink"][0] in content
    assert "var(" not in content


def test_a_picture_does_not_change_with_what_was_made_before() -> None:
    first, second = draw(samples.run())[0], draw(samples.run())[0]
    picture = first.png
    assert first.svg == second.svg
    assert second.png == picture


def test_matplotlibs_settings_are_neither_used_nor_changed() -> None:
    expected = [to_svg(drawing) for drawing in draw(samples.run())]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert [to_svg(drawing) for drawing in draw(samples.run())] == expected
        assert dict(matplotlib.rcParams) == before
