"""Scores against what is counted by hand, and the cases that have none."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.scores import chance_score, decided, score_predictions


def predictions(truth: list[list[int]], scores: list[list[float]]) -> Predictions:
    ids = np.array([str(row) for row in range(len(truth))])
    names = tuple("abcdef"[: len(truth[0])])
    return Predictions(ids, ids, names, np.array(truth, dtype=bool), np.array(scores, dtype=np.float32))


# Two of class a, one of b, one of c; the second a is taken for b, c for a.
ONE_OF_THREE = predictions([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], [[9, 1, 1], [1, 2, 0], [0, 5, 0], [3, 0, 1]])
TAGS = predictions([[1, 1], [1, 0], [0, 0], [0, 1]], [[0.9, -0.2], [-0.1, -0.5], [0.3, 0.4], [-0.7, 0.8]])


def test_multi_class_scores_are_those_counted_by_hand() -> None:
    f1 = score_predictions(ONE_OF_THREE, "macro_f1")
    # a: 1 hit of 2, said twice; b: its 1, said twice; c: never said.
    assert f1.classes == pytest.approx({"a": 50.0, "b": 200 / 3, "c": 0.0})
    assert f1.score == pytest.approx((50 + 200 / 3) / 3)
    accuracy = score_predictions(ONE_OF_THREE, "accuracy")
    assert accuracy.score == 50.0 and accuracy.classes == {"a": 50.0, "b": 100.0, "c": 0.0}


def test_macro_f1_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=200)
    found = predictions(np.eye(4)[truth].tolist(), rng.random((200, 4)).tolist())
    expected = f1_score(truth, found.scores.argmax(1), average="macro")
    assert score_predictions(found, "macro_f1").score == pytest.approx(100 * expected)


def test_multi_label_scores_are_those_counted_by_hand() -> None:
    assert decided(TAGS).tolist() == [[1, 0], [0, 0], [1, 1], [0, 1]]
    f1 = score_predictions(TAGS, "macro_f1")
    assert f1.classes == pytest.approx({"a": 50.0, "b": 50.0})
    # a is ranked 1st and 3rd: (1/1 + 2/3) / 2; b is ranked 1st and 3rd.
    found = score_predictions(TAGS, "map")
    assert found.classes == pytest.approx({"a": 500 / 6, "b": 500 / 6}) and found.score == pytest.approx(500 / 6)


def test_a_shift_of_a_class_changes_decisions_and_no_average_precision() -> None:
    moved = TAGS._replace(scores=TAGS.scores + np.float32([5, -5]))
    assert score_predictions(moved, "map").classes == pytest.approx(score_predictions(TAGS, "map").classes)
    assert decided(moved).tolist() == [[1, 0]] * 4


@pytest.mark.parametrize("metric", ["map", "macro_f1"])
def test_a_class_without_a_positive_clip_is_named_and_no_zero_is_made_up(metric: str) -> None:
    lacking = TAGS._replace(truth=TAGS.truth & [True, False])
    with pytest.raises(ValueError, match=f"no scored clip has the class b, so its {metric} is not defined"):
        score_predictions(lacking, metric)


def test_what_has_no_accuracy_or_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy needs exactly one class for every clip; score a multi-label task"):
        score_predictions(TAGS, "accuracy")
    with pytest.raises(ValueError, match="scores of the probe hold NaN or inf"):
        score_predictions(TAGS._replace(scores=TAGS.scores * np.float32(np.nan)), "map")
    with pytest.raises(ValueError, match="metric is 'f1'; there are macro_f1, accuracy, map"):
        score_predictions(TAGS, "f1")


def test_one_tag_alone_is_scored() -> None:
    one = predictions([[1], [0], [1], [0]], [[0.9], [0.4], [-0.1], [-0.5]])
    assert score_predictions(one, "macro_f1").classes == {"a": 50.0}  # one hit, one false, one missed
    assert score_predictions(one, "map").score == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_chance_is_what_the_shares_of_the_classes_give() -> None:
    """A class of share p is said and true at random: its precision and its recall are p."""
    shares = np.array([0.7, 0.2, 0.1])
    truth = np.repeat(np.eye(3), (1000 * shares).astype(int), axis=0)
    made = predictions(truth.tolist(), truth.tolist())
    assert chance_score(made, "macro_f1") == pytest.approx(100 / 3, abs=0.5)
    assert chance_score(made, "accuracy") == pytest.approx(100 * (shares**2).sum(), abs=0.5)
    assert chance_score(made, "map") == pytest.approx(100 / 3, abs=0.5)
    assert chance_score(made, "map", seed=1) != chance_score(made, "map") == chance_score(made, "map")
