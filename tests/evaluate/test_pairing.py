"""The same clips, the same resamples, and an exact test of two models."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from evaluated import evaluation, make_predictions, noisier, without_class

from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.pairing import PairedScores, align, few_recordings, holm, run_shares, swap_test
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.record import Evaluation
from sonar.evaluate.scores import score_predictions

MADE = make_predictions(1)
CONFIG = Resampling(num=200)


def one_task(predictions: Predictions) -> Evaluation:
    return evaluation(("birds", "target", predictions))


def shuffled(predictions: Predictions, seed: int = 0) -> Predictions:
    """Other order of clips and classes, the same content."""
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(predictions.clip_ids)), rng.permutation(len(predictions.classes))
    return Predictions(
        clip_ids=predictions.clip_ids[rows],
        groups=predictions.groups[rows],
        classes=tuple(predictions.classes[column] for column in columns),
        truth=predictions.truth[np.ix_(rows, columns)],
        scores=predictions.scores[np.ix_(rows, columns)],
    )


def test_the_order_of_clips_and_classes_does_not_matter() -> None:
    for first in (MADE, shuffled(MADE, 1)):
        (aligned,) = align(one_task(first).results, one_task(shuffled(MADE, 2)))
        for name in Predictions._fields:
            np.testing.assert_array_equal(getattr(aligned.predictions, name), getattr(first, name))


def test_other_clips_tasks_or_labels_are_refused_and_named() -> None:
    tasks = one_task(MADE).results
    fewer = MADE._replace(**{name: getattr(MADE, name)[:-5] for name in ("clip_ids", "groups", "truth", "scores")})
    with pytest.raises(
        ValueError, match="birds was scored on other clips: only in the first c0043, c0044, c0045 and 2"
    ):
        align(tasks, one_task(fewer))
    renamed = MADE._replace(clip_ids=np.char.replace(MADE.clip_ids, "c0047", "x"))
    with pytest.raises(ValueError, match="only in the first c0047; only in the second x; evaluate both runs on the sa"):
        align(tasks, one_task(renamed))
    with pytest.raises(ValueError, match="other classes: only in the first k2; only in the second owl"):
        align(tasks, one_task(MADE._replace(classes=("k0", "k1", "owl"))))
    with pytest.raises(
        ValueError, match=r"48 clips have other labels or recording groups \(c0000, c0001, c0002\); evalua"
    ):
        align(tasks, one_task(MADE._replace(truth=MADE.truth[:, ::-1] ^ False, groups=MADE.groups[::-1])))
    with pytest.raises(ValueError, match="other tasks: only in the first birds; only in the second bats"):
        align(tasks, evaluation(("bats", "target", MADE)))
    with pytest.raises(ValueError, match="birds has the roles target and prior; evaluate both in the same way"):
        align(tasks, evaluation(("birds", "prior", MADE)))
    with pytest.raises(ValueError, match="birds has the metrics macro_f1 and map"):
        align(tasks, evaluation(("birds", "target", MADE), metric="map"))
    twice = MADE._replace(**{n: getattr(MADE, n)[[0, *range(48)]] for n in ("clip_ids", "groups", "truth", "scores")})
    with pytest.raises(ValueError, match="other clips: one of them is there twice"):
        align(tasks, one_task(twice))


def test_row_0_is_the_mean_over_runs_of_the_reported_scores() -> None:
    runs = [one_task(noisier(MADE, seed)) for seed in range(3)]
    found = PairedScores(runs[0], CONFIG).mean(runs)["birds"]
    assert found.score[0] == pytest.approx(np.mean([run.scores("target")["birds"] for run in runs]))
    assert found.score.shape == (201,) and found.classes.shape == (201, 3)


def test_runs_of_one_comparison_share_their_resamples() -> None:
    paired = PairedScores(one_task(MADE), CONFIG)
    first, second = (paired.mean([one_task(each)])["birds"] for each in (MADE, shuffled(MADE)))
    np.testing.assert_array_equal(first.score, second.score)


def test_the_mean_over_drawn_runs_has_the_variance_of_a_mean_over_runs() -> None:
    values = np.asarray([1.0, 4.0, 10.0])
    drawn = run_shares(3, 200_000, np.random.default_rng(0)) @ values
    assert drawn[0] == pytest.approx(values.mean())
    assert drawn[1:].mean() == pytest.approx(values.mean(), abs=0.05)
    assert drawn[1:].var() == pytest.approx(values.var(ddof=1) / 3, rel=0.02)
    assert (run_shares(1, 5, np.random.default_rng(0)) == 1.0).all()


@pytest.mark.parametrize("metric", ["macro_f1", "map"])
def test_the_swap_test_is_the_share_of_all_exchanges_with_such_a_difference(metric: str) -> None:
    first = make_predictions(2, num_classes=2, recordings=3)
    second = noisier(first, 5, noise=1.5)
    differences = []
    for kept in product([True, False], repeat=6):
        swaps = ~np.asarray(kept)[np.searchsorted(np.unique(first.groups), first.groups)][:, None]
        ours = first._replace(scores=np.where(swaps, second.scores, first.scores))
        theirs = second._replace(scores=np.where(swaps, first.scores, second.scores))
        differences.append(score_predictions(ours, metric).score - score_predictions(theirs, metric).score)
    exact = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-9)
    found = swap_test([first], [second], metric, 20_000, np.random.default_rng(0))
    assert found.score == pytest.approx(exact, abs=0.015)


def test_a_class_of_three_recordings_cannot_be_certain_to_have_been_lost() -> None:
    made = make_predictions(3, num_classes=2, recordings=3, skill=9.0)  # never wrong
    found = swap_test([made], [without_class(made, 0)], "accuracy", 4000, np.random.default_rng(0))
    assert found.classes[0] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("runs", [1, 3])
def test_models_that_are_alike_are_rarely_called_different(runs: int) -> None:
    alarms = 0
    for seed in range(150):
        made = make_predictions(seed, recordings=6)
        sides = [[noisier(made, 1000 * side + 100 * seed + run) for run in range(runs)] for side in (1, 2)]
        alarms += swap_test(*sides, "macro_f1", 199, np.random.default_rng(seed)).score <= 0.05
    assert alarms / 150 <= 0.09


def test_holm_raises_p_values_by_the_number_of_tests_left() -> None:
    assert holm(np.asarray([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # a textbook's
    assert holm(np.asarray([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_tasks_of_few_recordings_are_named() -> None:
    few = make_predictions(0, recordings=2)
    single = MADE._replace(groups=np.full(48, "r"))
    notes = few_recordings(evaluation(("a", "prior", single), ("b", "prior", few), ("c", "prior", MADE)).results)
    assert [note.split(":")[0] for note in notes] == ["a is one recording", "b has 6 recordings"]
