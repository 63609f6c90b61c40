"""What a search shows while it goes on."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from mnist_tuner.search.display import SearchDisplay, score_note, trial_table
from mnist_tuner.search.trial import TrialSummary, ranked
from mnist_tuner.trainer.duration import duration_text


def summary(trial_id: str, *scores: float, **changes: Any) -> TrialSummary:
    """A finished trial; without scores it has failed."""
    options: dict[str, Any] = {
        "values": {"units": 8},
        "status": "completed" if scores else "failed",
        "seeds": tuple(range(len(scores))),
        "scores": scores,
        "epochs": 2 if scores else 0,
        "parameters": 1_234,
        "seconds": 2.0,
        "worker": "here",
        "reason": None if scores else "ValueError: no",
    }
    return TrialSummary(trial_id, **{**options, **changes})


def console(**options: Any) -> Console:
    """One that writes into memory."""
    return Console(file=io.StringIO(), width=120, **options)


def display(on: Console, **options: Any) -> SearchDisplay:
    """A display of a search of four trials with two replicates."""
    defaults: dict[str, Any] = {
        "objective": "val_accuracy",
        "direction": "max",
        "total": 4,
        "replicates": 2,
        "epochs": 2,
        "workers": 1,
    }
    return SearchDisplay(on, **{**defaults, **options})


def text(of: Console) -> str:
    """What has been written."""
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def tell(shown: SearchDisplay, ended: TrialSummary, *, restored: bool = False) -> None:
    """A trial from its beginning to its end."""
    shown.on_trial_asked(ended.trial_id, ended.values, 1_000)
    if not restored:
        shown.on_trial_started(ended.trial_id, 1, "here")
        for replicate in range(len(ended.scores)):
            shown.on_epoch(ended.trial_id, replicate, 1, 0.99)
    shown.on_trial_ended(ended, restored=restored)
    shown.on_tick()


class TestPlainLines:
    def test_each_trial_has_a_line_when_it_has_ended(self) -> None:
        on = console()
        with display(on) as shown:
            tell(shown, summary("0", 0.5, 0.75))
            tell(shown, summary("1"))
        lines = text(on).splitlines()
        assert len(lines) == 2
        assert lines[0].startswith(
            "1 of 4  trial 0  units=8  1,234 parameters  val_accuracy 0.6250 +/- 0.1768 (2)  2.0 s  about 0:"
        )
        assert lines[1].startswith("2 of 4  trial 1  units=8  1,234 parameters  failed: ValueError: no  2.0 s")

    def test_nothing_is_drawn_and_no_escape_codes_are_written(self) -> None:
        on = console()
        with display(on) as shown:
            for number in range(50):
                tell(shown, summary(str(number), 0.5))
        assert "\x1b" not in text(on)
        assert len(text(on).splitlines()) == 50

    def test_long_lines_are_not_broken(self) -> None:
        on = console()
        with display(on) as shown:
            tell(shown, summary("0", reason="x" * 300))
        assert len(text(on).splitlines()) == 1

    def test_what_looks_like_markup_is_written_as_it_is(self) -> None:
        on = console()
        with display(on) as shown:
            tell(shown, summary("0", values={"kind": "[bold]"}, reason="KeyError: '[red]x[/red]'"))
        assert "kind=[bold]" in text(on)
        assert "[red]x[/red]" in text(on)

    def test_restored_trials_are_not_repeated_but_counted(self) -> None:
        on = console()
        with display(on) as shown:
            tell(shown, summary("0", 0.5), restored=True)
            assert text(on) == ""
            tell(shown, summary("1", 0.5))
        assert text(on).startswith("2 of 4  trial 1")

    def test_a_second_attempt_is_told(self) -> None:
        on = console()
        with display(on) as shown:
            shown.on_trial_asked("0", {"units": 8}, 1)
            shown.on_trial_started("0", 1, "here")
            shown.on_trial_again("0", "ValueError: no")
        assert text(on) == "trial 0 failed (ValueError: no) and is tried once more\n"

    def test_a_search_of_unknown_length_does_not_say_of_how_many(self) -> None:
        on = console()
        with display(on, total=None) as shown:
            tell(shown, summary("0", 0.5))
        assert text(on).startswith("1  trial 0  ")
        assert "left" not in text(on)


class TestBestSoFar:
    def test_only_completed_trials_count(self) -> None:
        shown = display(console())
        assert shown.best_line().plain == "Best so far: none yet"
        shown.on_trial_asked("0", {"units": 8}, 1)
        shown.on_trial_started("0", 1, "here")
        shown.on_epoch("0", 0, 1, 0.99)
        assert shown.best_line().plain == "Best so far: none yet"
        shown.on_trial_ended(summary("0"), restored=False)
        assert shown.best_line().plain == "Best so far: none yet"
        tell(shown, summary("1", 0.5, 0.75))
        tell(shown, summary("2", 0.25))
        assert shown.best_line().plain == "Best so far trial 1: units=8  val_accuracy 0.6250 +/- 0.1768 (2)"

    def test_less_can_be_better(self) -> None:
        shown = display(console(), direction="min")
        for number, score in enumerate((0.5, 0.25, 0.75)):
            tell(shown, summary(str(number), score))
        assert shown.best is not None
        assert shown.best.trial_id == "1"

    def test_of_equals_the_first_is_the_best(self) -> None:
        shown = display(console())
        for trial_id in ("1", "0", "2"):
            tell(shown, summary(trial_id, 0.5))
        assert shown.best is not None
        assert shown.best.trial_id == "0"


class TestTimeLeft:
    def test_it_is_there_from_the_first_finished_trial_on(self) -> None:
        shown = display(console())
        assert shown.seconds_left() is None
        shown.on_trial_asked("0", {"units": 8}, 1_000)
        shown.on_trial_started("0", 1, "here")
        shown.on_epoch("0", 0, 1, 0.5)
        assert shown.seconds_left() is None
        assert "left" not in shown.summary_line().plain
        shown.on_trial_ended(summary("0", 0.5, 0.5), restored=False)
        assert shown.seconds_left() is not None
        assert "about 0:06 left" in shown.summary_line().plain

    def test_equal_trials_take_equally_long_on_each_of_the_workers(self) -> None:
        for workers in (1, 2):
            shown = display(console(), workers=workers)
            tell(shown, summary("0", 0.5, 0.5, seconds=10.0))
            assert round(shown.seconds_left() or 0) == 30 / workers

    def test_what_has_been_done_of_a_running_trial_is_not_left(self) -> None:
        shown = display(console(), total=2)
        tell(shown, summary("0", 0.5, 0.5, seconds=8.0))
        shown.on_trial_asked("1", {"units": 8}, 1_000)
        shown.on_trial_started("1", 1, "here")
        left = []
        for _ in range(4):
            left.append(round(shown.seconds_left() or 0, 6))
            shown.on_epoch("1", 0, 1, 0.5)
        assert left == [8.0, 6.0, 4.0, 2.0]

    def test_at_the_end_nothing_is_left(self) -> None:
        shown = display(console(), total=2)
        tell(shown, summary("0", 0.5))
        tell(shown, summary("1"))
        assert shown.seconds_left() == 0

    def test_what_is_trained_afterwards_is_counted(self) -> None:
        shown = display(console(), total=1, trainings_afterwards=3)
        tell(shown, summary("0", 0.5, 0.5, seconds=4.0, parameters=1_000))
        assert round(shown.seconds_left() or 0) == 3 * 2 * 2  # three of each of two nets, of two seconds each

    def test_a_promoted_trial_has_only_the_epochs_that_are_left(self) -> None:
        shown = display(console(), total=2, epochs=9)
        tell(shown, summary("0", 0.5, 0.5, seconds=9.0))
        shown.on_trial_asked("1", {"units": 8, "tuner/epochs": 9, "tuner/initial_epoch": 3}, 1_000)
        assert round(shown.seconds_left() or 0) == 6


class TestTerminal:
    def test_the_live_table_shows_what_runs_and_what_has_ended(self) -> None:
        on = console(force_terminal=True, legacy_windows=False, height=40)
        with display(on) as shown:
            tell(shown, summary("0", 0.5, 0.75))
            shown.on_trial_asked("1", {"units": 16}, 1_000)
            shown.on_trial_asked("2", {"units": 32}, 1_000)
            shown.on_trial_started("1", 1, "tls://127.0.0.1:1")
            shown.on_trial_again("1", "ValueError: no")
            shown.on_trial_started("1", 2, "tls://127.0.0.1:1")
            shown.on_epoch("1", 1, 2, 0.875)
            table = shown._table()
        cells = [list(column.cells) for column in table.columns]
        assert [str(cell) for cell in cells[0]] == ["0", "1"]
        assert [str(cell) for cell in cells[1]] == ["done", "runs (2.)"]
        assert [str(cell) for cell in cells[2]] == ["8", "16"]
        assert [str(cell) for cell in cells[4]] == ["2", "2/2: 2"]
        assert [str(cell).removesuffix(" (2)") for cell in cells[5]] == ["0.6250 +/- 0.1768", "0.8750"]


class TestTable:
    def test_trials_are_ranked_with_failed_ones_last_and_equals_by_number(self) -> None:
        trials = [summary("3"), summary("2", 0.5), summary("0", 0.25), summary("1", 0.5)]
        assert [each.trial_id for each in ranked(trials, "max")] == ["1", "2", "0", "3"]
        assert [each.trial_id for each in ranked(trials, "min")] == ["0", "1", "2", "3"]

    def test_reasons_stand_in_the_table(self) -> None:
        on = console()
        on.print(trial_table([summary("0", 0.5, 0.75), summary("1", values={"units": 8, "rate": 0.000125})], "val_accuracy"))
        written = text(on)
        assert "0.6250 +/- 0.1768 (2)" in written
        assert "failed: ValueError: no" in written
        assert "0.000125" in written

    def test_a_score_that_is_not_the_last_epochs_says_whose_it_is(self) -> None:
        restored = summary("0", 0.5, 0.75, scored=(3, None), epochs=5)
        on = console()
        on.print(trial_table([restored, summary("1", 0.25, epochs=5)], "val_accuracy"))
        assert "3, last of 5" in text(on)
        assert score_note([restored]).endswith("that whose weights were restored, or the last that was validated")
        assert score_note([summary("0", 0.5)]) == "after the last epoch"
        assert "are no epoch's" in score_note([summary("0", 0.5, scored=(0,))])

    def test_what_hyperband_adds_is_not_a_column(self) -> None:
        on = console()
        on.print(trial_table([summary("0", 0.5, values={"units": 8, "tuner/bracket": 1})], "val_accuracy"))
        assert "tuner" not in text(on)


def test_durations_are_for_people() -> None:
    assert [duration_text(seconds) for seconds in (0, 59.6, 65, 3_600, 36_061)] == ["0:00", "1:00", "1:05", "1:00:00", "10:01:01"]
