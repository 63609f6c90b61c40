"""The page of a report: its structure, its numbers, and what it does with foreign text."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnist_tuner.render.figures import draw
from mnist_tuner.render.html import page
from mnist_tuner.reports.search import SearchReport
from tests.support import samples

COMMAND = "mnist-tuner train --epochs 5 --data 'a <b> & c'"
REPORTS = {
    "run": samples.run,
    "seeds": samples.seeds,
    "search": samples.search,
    "interrupted": samples.unjudged_search,
    "comparison": samples.comparison,
}
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Document(HTMLParser):
    """A page, taken apart."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in {tag}"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """With single spaces."""
        return " ".join("".join(self.words).split())


def written(report: Any, mistakes: Any = None) -> Document:
    test = getattr(report, "test", None)
    images = samples.pictures(test) if mistakes is None and test is not None else mistakes
    return Document(page(report, mistakes=images, drawings=draw(report), command=COMMAND))


@cache
def of(name: str) -> Document:
    return written(REPORTS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_a_page_is_a_whole_document(name: str) -> None:
    document = of(name)
    assert document.source.startswith("<!doctype html>")
    assert document.all("html") == [{"lang": "en"}]
    assert len(document.all("h1")) == len(document.all("title")) == len(document.all("main")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in document.all("meta")
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in document.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
    headings = [int(tag[1]) for tag, _ in document.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(headings))


@pytest.mark.parametrize("name", REPORTS)
def test_a_page_needs_nothing_else(name: str) -> None:
    document = of(name)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert {"http-equiv": "Content-Security-Policy", "content": policy} in document.all("meta")
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in document.tags}
    for _, attributes in document.tags:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on")
            if attribute in ("src", "href", "xlink:href", "srcset", "data", "poster"):
                assert value.startswith(("data:image/png;base64,", "#"))
    assert "@import" not in document.source
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)", document.source))
    assert len(document.source) < 3_000_000


@pytest.mark.parametrize("name", REPORTS)
def test_pictures_are_described_and_tables_labelled(name: str) -> None:
    document = of(name)
    assert all(picture["alt"] for picture in document.all("img"))
    assert all(figure["role"] == "img" and len(figure["aria-label"]) > 40 for figure in document.all("svg"))
    assert len(document.all("table")) == len(document.all("caption")) > 0
    assert all(cell.get("scope") in ("row", "col") for cell in document.all("th"))
    for attributes in document.all("div"):
        if "scroll" in attributes.get("class", "").split():
            assert attributes["role"] == "region"
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]


@pytest.mark.parametrize("name", REPORTS)
def test_equal_reports_have_equal_pages(name: str) -> None:
    assert written(REPORTS[name]()).source == of(name).source


@pytest.mark.parametrize("name", REPORTS)
def test_the_command_is_shown_as_it_is(name: str) -> None:
    assert COMMAND in of(name).text


@pytest.mark.parametrize("name", ["run", "seeds"])
def test_a_runs_numbers_are_those_of_the_console(name: str) -> None:
    report, document = REPORTS[name](), of(name)
    assert report.accuracy.value == pytest.approx(report.test.accuracy)
    interval = f"{100 * report.accuracy.low:.2f} to {100 * report.accuracy.high:.2f} %"
    assert f"{report.accuracy.value:.2%} test accuracy, 95 % interval {interval}" in document.text
    assert f"{report.test.loss:.4f}" in document.text
    for score in report.test.classes:
        expected = [str(score.label), f"{score.support:,}", *(f"{n:.4f}" for n in (score.precision, score.recall, score.f1))]
        assert expected in document.rows
    for label, row in enumerate(report.test.matrix):
        assert [str(label), *(str(n) if n or i == label else "·" for i, n in enumerate(row))] in document.rows
    for pair in report.test.confusions:
        assert f"{pair.label} as {pair.predicted} ({pair.count})" in document.text
    assert ["train", f"{report.timing.fit_s - report.timing.compile_s:.1f}"] in document.rows


def test_a_run_says_how_many_images_were_read_right() -> None:
    run = samples.run()
    assert run.test is not None
    assert f"It read {run.test.correct:,} of 10,000 test images right" in of("run").text
    last = run.epochs[-1]
    assert ["5", *(f"{last[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy")), "0.551"] in of("run").rows


def test_each_seed_has_its_row() -> None:
    run = samples.seeds()
    assert run.seeds is not None
    for each in run.seeds.trainings:
        assert [str(each.seed), f"{each.accuracy:.2%}", f"{each.loss:.4f}", f"{each.seconds:.1f}"] in of("seeds").rows
    assert f"{100 * run.seeds.sd:.2f} points (standard deviation)" in of("seeds").text
    assert "counts seeds and images both" in of("seeds").text


@pytest.mark.slow
def test_a_search_gives_its_verdict_first_and_what_to_do_next() -> None:
    for better in (0.0052, 0.0001):
        report = samples.search(better=better)
        assert report.comparison is not None
        text = written(report).text
        places = [text.index(part) for part in (report.verdict, report.comparison.outlook, report.advice) if part]
        assert len(places) >= 2
        assert places == sorted(places)
        assert max(places) < text.index("An interval")


def test_a_searchs_numbers_are_those_of_the_console() -> None:
    report, document = samples.search(), of("search")
    assert report.winner is not None
    assert report.baseline is not None
    for role, net in (("winner", report.winner), ("baseline", report.baseline)):
        row = next(row for row in document.rows if row[0] == role)
        assert row[1:3] == [net.name, f"{net.parameters:,}"]
        assert row[3] == f"{net.accuracy.value:.2%} +/- {net.sd:.2%} (5)"
        assert row[4] == f"{100 * net.accuracy.low:.2f} to {100 * net.accuracy.high:.2f} %"
        assert row[5].split() == [f"{accuracy:.2%}" for accuracy in net.accuracies]
    rows = {row[0][:4]: row for row in document.rows if len(row) == 6}
    for trial in report.trials:
        if trial.completed:
            units = [str(trial.values[f"units_{i}"]) for i in (1, 2)]
            score = f"{trial.mean:.4f} +/- {trial.sd:.4f} (3)"
            assert rows[trial.trial_id][1:] == [*units, f"{trial.parameters:,}", score, f"{trial.seconds:.1f}"]
        else:
            assert trial.reason in document.text
    assert report.selection is not None
    assert f"{report.selection.luck:.4f}" in document.text
    assert f"one standard error ({report.selection.standard_error:.4f})" in document.text


def test_the_trials_are_ranked_and_marked() -> None:
    report, document = samples.search(), of("search")
    scores = [float(row[4].split()[0]) for row in document.rows if len(row) == 6 and "+/-" in row[4]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == sum(trial.completed for trial in report.trials)
    marked = {row[0] for row in document.rows if len(row) == 6 and len(row[0]) > 4}
    assert report.best is not None
    assert report.recommended is not None
    assert {f"{report.best.trial_id}best", f"{report.recommended.trial_id}recommended", "0000baseline"} <= marked


def test_of_ten_thousand_trials_the_best_are_listed() -> None:
    report = replace(samples.unjudged_search(), trials=samples.trials(10_000, step=2))
    document = Document(page(report, mistakes=None, drawings=(), command=COMMAND))
    assert re.search(r"The best first: 200 of 9,7\d\d\.", document.text)
    assert sum("+/-" in row[4] for row in document.rows if len(row) == 6) == 200
    assert len(document.source) < 500_000


def test_a_comparison_names_every_two() -> None:
    report, document = samples.comparison(), of("comparison")
    assert report.verdict in document.text
    for net, folder in zip(report.contestants, report.run_dirs, strict=True):
        row = next(row for row in document.rows if row[0] == f"{net.name}{folder}")
        assert row[2] == f"{net.accuracy.value:.2%} +/- {net.sd:.2%} (5)"
        assert row[3] == f"{100 * net.accuracy.low:.2f} to {100 * net.accuracy.high:.2f} %"
    for each in report.comparisons:
        row = next(row for row in document.rows if row[0] == f"{each.first} and {each.second}")
        assert row[1:3] == [
            f"{100 * each.difference.value:.2f}",
            f"{100 * each.difference.low:.2f} to {100 * each.difference.high:.2f}",
        ]
        assert each.verdict in row[3]


def test_nets_that_were_trained_once_are_compared_too() -> None:
    report = samples.comparison(nets=2, trainings=1)
    text = written(report).text
    assert report.comparisons[0].method == "McNemar"
    assert report.verdict in text
    assert report.outlook in text
    assert f"{report.contestants[0].accuracy.value:.2%} (1)" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": "interrupted"}, "Interrupted."),
        ({"status": "failed", "error": "the loss was <not> finite"}, "Failed: the loss was <not> finite"),
        ({"status": "failed"}, "Failed."),
        ({"status": "running"}, "Not finished."),
        ({"stopped": "after 3 epochs without a better val_loss"}, "stopped after 3 epochs without a better val_loss"),
    ],
)
@pytest.mark.parametrize("name", ["run", "search"])
def test_how_it_ended_is_said_at_the_top(name: str, changes: dict[str, Any], said: str) -> None:
    text = written(replace(REPORTS[name](), **changes)).text
    assert said in text
    assert text.index(said) < text.index("test accuracy" if name == "run" else "Best val_accuracy")


def test_of_what_ended_as_planned_nothing_is_said() -> None:
    assert not any(word in of("run").text for word in ("Interrupted", "Failed", "Not finished", "Ended early"))


@pytest.mark.parametrize(
    "changes",
    [
        {"test": None, "status": "failed"},
        {"test": None, "epochs": (), "data": None, "timing": None, "parameters": None, "status": "running"},
        {"versions": {}},
        {"epochs": ({"epoch": 1, "loss": None, "accuracy": 0.1},)},
        {"config": {**samples.run().config, "hidden": [100] * 20}},
    ],
)
def test_a_run_that_came_only_so_far_has_a_page(changes: dict[str, Any]) -> None:
    run = replace(samples.run(), **changes)
    document = written(run)
    assert ("There is no result" in document.text) == (run.test is None)
    assert ("not finite" in document.text) == (None in [value for epoch in run.epochs for value in epoch.values()])


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": (), "curves": ()},
        {"trials": (), "curves": (), "data": None, "timing": None, "total": None, "status": "running"},
        {"trials": tuple(samples.trial(i, (32 * i, 64), ()) for i in range(3)), "curves": ()},
        {"trials": samples.trials(1)},
        {"trials": samples.trials(30, replicates=1)},
        {"trials": tuple(replace(trial, parameters=None) for trial in samples.trials(1))},
    ],
)
def test_a_search_that_came_only_so_far_has_a_page(changes: dict[str, Any]) -> None:
    report: SearchReport = replace(samples.unjudged_search(), **changes)
    text = written(report).text
    assert ("No trial was completed." in text) == (report.best is None)
    assert ("nobody can tell how much of that is luck" in text) == (
        report.selection is not None and report.selection.luck is None
    )


def test_a_search_whose_baseline_was_best_has_no_winner() -> None:
    report = replace(samples.search(), winner=None, comparison=None)
    text = written(report).text
    assert report.verdict is not None
    assert report.verdict in text
    assert "Test accuracy of the winner" not in text


def test_mistakes_are_shown_with_their_images() -> None:
    run = samples.seeds()
    assert run.test is not None
    images, document = samples.pictures(run.test), of("seeds")
    shown = document.all("img")
    assert len(shown) == len(run.test.mistakes) == len(images)
    for attributes, mistake, image in zip(shown, run.test.mistakes, images, strict=True):
        assert attributes["alt"] == f"a {mistake.label} that was read as {mistake.predicted}"
        content = base64.b64decode(attributes["src"].partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), image)
        caption = f"{mistake.label} read as {mistake.predicted}, {mistake.confidence:.2%}by {mistake.trainings} of 5 trainings"
        assert caption in document.text
    assert "by 1 of 1" not in of("run").text


def test_large_images_of_mistakes_are_thinned_out() -> None:
    run = samples.run()
    document = written(run, samples.pictures(run.test, (300, 200)))
    content = base64.b64decode(document.all("img")[0]["src"].partition(",")[2])
    assert Image.open(io.BytesIO(content)).size == (40, 60)


def test_without_images_there_is_no_gallery() -> None:
    assert not Document(page(samples.run(), mistakes=None, drawings=(), command=COMMAND)).all("img")


def test_a_hostile_name_is_text_everywhere() -> None:
    hostile = samples.HOSTILE
    run = replace(
        samples.run(name=hostile),
        run_dir=f"runs/{hostile}",
        status="failed",
        error=f"{hostile}: no such file",
        stopped=hostile,
        config={**samples.run().config, "data": hostile},
    )
    trial = replace(samples.trial(1, (32, 32), ()), reason=hostile)
    search = replace(
        samples.search(), trials=(*samples.trials(1), trial), data=samples.data_summary(hostile), error=hostile, status="failed"
    )
    comparison = replace(samples.comparison(2, 2, (hostile, f"{hostile}2")), data=hostile, run_dirs=(hostile, f"{hostile}2"))
    for report in (run, search, comparison):
        document = written(report)
        assert not document.all("script")
        assert " ".join(hostile.split()) in document.text
        assert "49" not in re.findall(r"digits.{60}", document.text)[0]


def test_a_folders_name_need_not_be_text() -> None:
    document = written(replace(samples.run(name="a\udcffb"), run_dir="runs/a\udcffb"))
    assert "a?b" in document.source.encode().decode()


@pytest.mark.parametrize(("classes", "in_numbers"), [(2, True), (62, True), (256, False)])
def test_many_classes_have_a_page_that_is_not_too_large(classes: int, in_numbers: bool) -> None:
    document = written(samples.run(classes=classes))
    assert ("Confusion matrix in numbers" in document.text) == in_numbers
    assert len(document.source) < 1_000_000
    assert sum(len(row) == 5 for row in document.rows) >= classes
