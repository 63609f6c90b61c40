"""What the choice among a search's trials is worth."""

from __future__ import annotations

import numpy as np
import pytest

from mnist_tuner.reports.search import select
from mnist_tuner.search.trial import TrialSummary


def trial(
    number: int, *scores: float, widths: tuple[int, int] | None = None, parameters: int | None = None, epochs: int = 5
) -> TrialSummary:
    """A trial that has ended, of a net of its own; without scores it has failed."""
    first, second = widths or (32 * (number + 1), 64)
    return TrialSummary(
        trial_id=f"{number:02}",
        values={"units_1": first, "units_2": second},
        status="completed" if scores else "failed",
        seeds=tuple(range(len(scores))),
        scores=scores,
        epochs=epochs if scores else 0,
        parameters=(785 * first + (first + 1) * second + (second + 1) * 10) if parameters is None else parameters,
        seconds=1.0,
        worker="",
        reason=None if scores else "no",
    )


def test_luck_is_what_the_best_of_so_many_equal_nets_stands_out_by() -> None:
    generator, nets, replicates, spread = np.random.default_rng(1), 16, 3, 0.0019
    scores = generator.normal(0.975, spread, (20_000, nets, replicates))
    best = float((scores.mean(axis=2).max(axis=1) - 0.975).mean())  # what it comes to in truth
    searches = [select([trial(i, *row) for i, row in enumerate(search.tolist())]) for search in scores[:150]]
    assert all(each is not None and each.candidates == 16 for each in searches)
    told = [each.luck for each in searches if each is not None and each.luck is not None]
    assert len(told) == 150
    assert np.mean(told) == pytest.approx(best, rel=0.03)
    assert best > 1.7 * spread / replicates**0.5
    error = [each.standard_error for each in searches if each is not None and each.standard_error is not None]
    assert np.mean(error) == pytest.approx(float(scores.mean(axis=2).std()), rel=0.03)


def test_luck_counts_nets_and_not_trials_of_the_same_net() -> None:
    scores = [(0.97, 0.98), (0.98, 0.97), (0.96, 0.97)]
    apart = select([trial(i, *row) for i, row in enumerate(scores)])
    same = select([trial(i, *row, widths=(64, 64)) for i, row in enumerate(scores)])
    assert apart is not None
    assert same is not None
    assert (apart.candidates, same.candidates) == (3, 1)
    assert apart.standard_error == same.standard_error == pytest.approx(0.01 / 2**0.5 / 2**0.5)
    assert apart.luck == pytest.approx(0.846284 * 0.005, rel=1e-5)
    assert same.luck == 0


def test_with_one_replicate_nobody_can_tell_luck_from_merit_and_the_best_is_recommended() -> None:
    found = select([trial(0, 0.975), trial(1, 0.981), trial(2, 0.9809)])
    assert found is not None
    assert (found.best, found.recommended, found.luck, found.standard_error) == ("01", "01", None, None)
    assert found.to_dict() == {"best": "01", "candidates": 3, "standard_error": None, "luck": None, "recommended": "01"}


def test_the_net_with_the_fewest_parameters_within_one_standard_error_is_recommended() -> None:
    spread = 0.002 / 2**0.5  # of two scores 0.002 apart; the standard error of their mean is 0.001
    means = {512: 0.9820, 256: 0.9811, 128: 0.9812, 96: 0.9809, 64: 0.9700}
    trials = [trial(i, mean - 0.001, mean + 0.001, widths=(width, 64)) for i, (width, mean) in enumerate(means.items())]
    found = select(trials)
    assert found is not None
    assert found.standard_error == pytest.approx(spread / 2**0.5)
    assert (found.best, found.recommended) == ("00", "02")  # 96 is a hair too far away, 256 is as near and wider
    small = [*trials[:4], trial(4, 0.9795, 0.9815, widths=(600, 600), parameters=5)]  # it is parameters that count, not widths
    assert select(small).recommended == "02"  # type: ignore[union-attr]
    within = [*trials[:4], trial(4, 0.9803, 0.9823, widths=(600, 600), parameters=5)]
    assert select(within).recommended == "04"  # type: ignore[union-attr]


def test_the_best_is_recommended_where_nothing_narrower_is_near() -> None:
    found = select([trial(0, 0.950, 0.951), trial(1, 0.980, 0.981), trial(2, 0.980, 0.981), trial(3, 0.979, 0.980)])
    assert found is not None
    assert (found.best, found.recommended) == ("01", "01")  # of equals the first, which is the narrower here


def test_of_equally_good_nets_the_first_is_the_best_and_the_narrowest_is_recommended() -> None:
    scores = (0.979, 0.981)
    trials = [trial(0, *scores, widths=(512, 64)), trial(1, *scores, widths=(64, 64)), trial(2, *scores, widths=(128, 64))]
    found = select(trials)
    assert found is not None
    assert (found.best, found.recommended) == ("00", "01")


def test_of_equally_small_nets_the_better_is_recommended() -> None:
    trials = [
        trial(0, 0.978, 0.984, parameters=900),
        *(trial(i, m - 0.003, m + 0.003, parameters=500) for i, m in ((1, 0.979), (2, 0.98))),
    ]
    found = select(trials)
    assert found is not None
    assert (found.best, found.recommended) == ("00", "02")


def test_what_hyperband_has_ended_early_is_not_recommended_and_was_chosen_from() -> None:
    early = [trial(i, 0.979, 0.981, epochs=2, widths=(8 * i, 8)) for i in (1, 2, 3)]
    late = [trial(i, 0.9795, 0.9815, epochs=5, widths=(8 * i, 8)) for i in (4, 5)]
    found = select([*early, *late])
    assert found is not None
    assert (found.best, found.recommended, found.candidates) == ("04", "04", 5)
    assert found.standard_error == pytest.approx(0.002 / 2**0.5 / 2**0.5)
    assert found.luck == pytest.approx(1.162964 * 0.001, rel=1e-5)  # the largest of five
    noisy = [trial(i, 0.90, 0.98, epochs=2, widths=(8 * i, 8)) for i in (1, 2, 3)]
    assert select([*noisy, *late]).standard_error == found.standard_error  # type: ignore[union-attr]


def test_a_net_that_hyperband_promoted_is_one_candidate() -> None:
    first, again = trial(1, 0.97, 0.98, epochs=2, widths=(8, 8)), trial(2, 0.98, 0.985, epochs=5, widths=(8, 8))
    again.values.update({"tuner/epochs": 5, "tuner/trial_id": "01"})
    found = select([first, again])
    assert found is not None
    assert (found.candidates, found.best) == (1, "02")


def test_trials_that_failed_are_neither_chosen_nor_counted() -> None:
    found = select([trial(0), trial(1, 0.97, 0.98), trial(2), trial(3, 0.96, 0.97)])
    assert found is not None
    assert (found.best, found.candidates) == ("01", 2)
    assert found.recommended == "01"
    assert select([trial(0), trial(1)]) is None
    assert select([]) is None


def test_a_single_trial_is_the_best_of_itself_without_luck() -> None:
    found = select([trial(0, 0.97, 0.98)])
    assert found is not None
    assert (found.best, found.recommended, found.candidates, found.luck) == ("00", "00", 1, 0.0)


def test_replicates_that_agree_to_the_bit_leave_no_room_for_luck() -> None:
    found = select([trial(0, 0.97, 0.97), trial(1, 0.98, 0.98)])
    assert found is not None
    assert (found.standard_error, found.luck, found.recommended) == (0.0, 0.0, "01")
