"""Which of two sides is better, and who was forgotten: planted differences are found, chance is not."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import evaluation, make_predictions, noisier, without_class

from sonar.evaluate.bootstrap import Interval, Resampling
from sonar.evaluate.comparison import Change, compare_axes, compare_changes, lost_most, verdict_of_losses
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.record import Evaluation
from sonar.evaluate.run import compare

CONFIG = Resampling(num=500)
BIRDS, GENERAL, MUSIC = (make_predictions(seed, recordings=12) for seed in (1, 2, 3))


def model(birds: Predictions = BIRDS, general: Predictions = GENERAL, music: Predictions = MUSIC) -> Evaluation:
    return evaluation(("birds", "target", birds), ("general", "prior", general), ("music", "prior", music))


BASE = model()
BETTER = model(birds=noisier(BIRDS, 0, noise=0.0, help_truth=1.5), music=noisier(MUSIC, 0, noise=0.0, help_truth=0.5))
WORSE = model(birds=noisier(BIRDS, 0, noise=0.0, help_truth=-1.0), general=without_class(GENERAL, 0))


def test_both_axes_are_those_that_a_trial_is_told_with() -> None:
    found, told = compare_axes([BETTER], [WORSE], BASE, CONFIG), [compare(BASE, side) for side in (BETTER, WORSE)]
    for axis in (found.plasticity, found.forgetting_rate):
        values = [getattr(side, axis.name) for side in told]
        assert [axis.first.value, axis.second.value] == pytest.approx(values)
        assert axis.difference.value == pytest.approx(values[1] - values[0])
        assert all(each.interval.low <= each.value <= each.interval.high for each in (axis.first, axis.second))


def test_a_side_that_is_better_everywhere_dominates_surely() -> None:
    found = compare_axes([BETTER], [WORSE], BASE, CONFIG)
    assert found.dominates.first > 0.99 and found.dominates.second == 0.0
    assert compare_axes([WORSE], [BETTER], BASE, CONFIG).dominates.second > 0.99
    assert found.plasticity.difference.interval.high < 0 < found.forgetting_rate.difference.interval.low


def test_equal_sides_do_not_dominate_each_other_and_differ_by_nothing() -> None:
    found = compare_axes([BETTER], [BETTER], BASE, CONFIG)
    assert found.dominates == (0.0, 0.0)
    assert found.plasticity.difference == (0.0, (0.0, 0.0))
    assert not any(change.is_certain for table in compare_changes([BASE], [BASE], CONFIG) for change in table)


def test_dominance_over_runs_is_its_share_in_a_brute_force_resampling() -> None:
    """The priors are untouched, so that ties count: of equal forgetting, the more plastic side dominates."""
    sides = [[model(birds=noisier(BIRDS, 10 * side + run, noise=0.8)) for run in range(3)] for side in (1, 2)]
    found = compare_axes(*sides, BASE, Resampling(num=3000)).dominates
    rng, draws, share = np.random.default_rng(5), 1500, np.zeros(2)
    for _ in range(draws):
        rows = _draw_rows(BIRDS, rng)
        means = [np.mean([_macro_f1(side[run], rows) for run in rng.integers(0, 3, size=3)]) for side in sides]
        share += means[0] > means[1], means[1] > means[0]
    # The shares of the runs are stretched, which widens the spread over runs a little and moves the share hardly.
    assert found == pytest.approx(share / draws, abs=0.06)


def _draw_rows(predictions: Predictions, rng: np.random.Generator) -> np.ndarray:
    names = np.unique(predictions.groups)
    return np.concatenate([np.flatnonzero(predictions.groups == name) for name in rng.choice(names, len(names))])


def _macro_f1(of: Evaluation, rows: np.ndarray) -> float:
    predictions = of.results[0].predictions
    true, said = predictions.truth[rows].argmax(1), predictions.scores[rows].argmax(1)
    return float(
        np.mean([2 * ((true == c) & (said == c)).sum() / ((true == c).sum() + (said == c).sum()) for c in set(true)])
    )


def test_intervals_widen_by_what_the_runs_of_a_side_differ() -> None:
    runs = [model(birds=noisier(BIRDS, 0, noise=0.0, help_truth=push)) for push in (-1.5, 0.0, 1.5)]
    one, several = (compare_axes([runs[1]], side, BASE, CONFIG) for side in ([runs[1]], runs))
    width = several.plasticity.second.interval.high - several.plasticity.second.interval.low
    assert width > 10 + one.plasticity.second.interval.high - one.plasticity.second.interval.low


def test_a_class_that_was_lost_is_named_first_and_is_certain() -> None:
    changes = compare_changes([BASE], [WORSE], CONFIG)
    worst = lost_most(changes.classes, 2)[0]
    assert (worst.task, worst.label, worst.role, worst.second) == ("general", "k0", "prior", 0.0)
    assert worst.is_certain and worst.interval.high < 0 and worst.p_value < worst.p_holm <= 0.05
    assert (worst.num_clips, worst.num_groups) == (24, 12)
    assert verdict_of_losses(changes.classes).startswith("certain to have been lost: ")
    assert f"k0 (general {worst.difference:+.1f})" in verdict_of_losses(changes.classes)
    assert [change.task for change in changes.tasks] == ["birds", "general", "music"]
    before, after = BASE.scores("prior")["general"], WORSE.scores("prior")["general"]
    assert (changes.tasks[1].first, changes.tasks[1].second) == pytest.approx((before, after))


def test_where_all_intervals_reach_0_no_class_is_said_to_be_lost() -> None:
    changes = compare_changes([BASE], [model(general=noisier(GENERAL, 3, noise=0.3))], CONFIG)
    assert any(change.difference < 0 for change in changes.classes)
    assert verdict_of_losses(changes.classes) == "no class is certain to have been lost: all intervals reach 0"


def test_an_interval_below_0_that_chance_may_explain_is_not_called_certain() -> None:
    changes = [_change("a", -5.0, Interval(-9.0, -1.0)), _change("b", 2.0, Interval(-1.0, 5.0))]
    assert "1 of 2 intervals lie below 0, but so many classes" in verdict_of_losses(changes)


def test_the_list_of_losses_holds_the_largest_and_no_gain() -> None:
    changes = [_change(str(value), value, Interval(value - 1, value + 1)) for value in (-1.0, 3.0, -7.0, -2.0)]
    assert [change.difference for change in lost_most(changes, 2)] == [-7.0, -2.0]
    assert len(lost_most(changes, 9)) == 3


def _change(label: str, difference: float, interval: Interval) -> Change:
    return Change("t", "prior", label, 50.0, 50.0 + difference, difference, interval, 0.03, 0.9, 8, 4, False)


def test_with_no_true_change_a_table_of_classes_rarely_names_one() -> None:
    alarms = 0
    for seed in range(60):
        made = make_predictions(seed, num_classes=5, recordings=6)
        sides = [evaluation(("t", "prior", noisier(made, 1000 * side + seed))) for side in (1, 2)]
        found = compare_changes([sides[0]], [sides[1]], Resampling(num=300, seed=seed))
        alarms += any(change.is_certain for change in found.classes)
    assert alarms / 60 <= 0.10


def test_a_base_that_scores_nothing_or_a_missing_role_is_refused() -> None:
    wrong = noisier(BIRDS, 0, noise=0.0, help_truth=-99.0)  # never right
    with pytest.raises(ValueError, match="the base scores 0 on task birds in some resamples"):
        compare_axes([BASE], [BASE], model(birds=wrong), CONFIG)
    only = evaluation(("birds", "target", BIRDS))
    with pytest.raises(ValueError, match="no prior task among birds; both axes need a target and a prior task"):
        compare_axes([only], [only], only, CONFIG)
