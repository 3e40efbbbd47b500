"""The metrics of a sequence against numbers worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.evaluate.metrics import (
    ScoreMatrix,
    backward_transfer,
    continual_metrics,
    forgetting_from_best,
    forward_transfer,
    retention,
    stability,
)

# Two prior tasks, then bio at stage 1, music at stage 2, speech at stage 3.
MATRIX = ScoreMatrix(
    stages=("base", "bio", "music", "speech"),
    tasks=("general", "noises", "birds", "genres", "emotions"),
    learned_at=(0, 0, 1, 2, 3),
    scores=(
        (80.0, 50.0, 40.0, 60.0, 25.0),
        (84.0, 45.0, 70.0, 54.0, 30.0),
        (60.0, 48.0, 63.0, 90.0, 35.0),
        (72.0, 40.0, 56.0, 81.0, 50.0),
    ),
)
RANDOM = {"birds": 10.0, "genres": 20.0, "emotions": 15.0}


def test_every_metric_of_a_sequence_of_three_is_the_one_worked_out_by_hand() -> None:
    found = continual_metrics(MATRIX, RANDOM)
    assert found.forgetting_rate == pytest.approx({"general": 10.0, "noises": 20.0})
    assert (found.forgetting_mean, found.forgetting_worst, found.stability) == pytest.approx((15.0, 20.0, 85.0))
    # birds 40 -> 56 is +40 %, genres 60 -> 81 is +35 %, emotions 25 -> 50 is +100 %.
    assert found.plasticity == pytest.approx((40 + 35 + 100) / 3)
    # birds 56 - 70, genres 81 - 90; emotions are of the last stage.
    assert found.backward_transfer == pytest.approx((-14 - 9) / 2)
    # general 84 - 72, noises 50 - 40, birds 70 - 56, genres 90 - 81.
    expected = {"general": 12.0, "noises": 10.0, "birds": 14.0, "genres": 9.0}
    assert found.forgetting_from_best == pytest.approx(expected)
    assert found.forgetting_from_best_mean == pytest.approx(45 / 4)
    # birds 40 - 10 before stage 1, genres 54 - 20 before stage 2, emotions 35 - 15 before stage 3.
    assert found.forward_transfer == pytest.approx((30 + 34 + 20) / 3)


def test_what_is_not_forgotten_is_retained_as_in_the_papers_example() -> None:
    assert retention(34.8, 13.7) == pytest.approx(100 * 13.7 / 34.8)
    assert round(100 - retention(34.8, 13.7), 1) == 60.6
    assert stability({"a": 10.0, "b": 20.0}, {"a": 9.0, "b": 22.0}) == pytest.approx((90 + 110) / 2)


scores = st.lists(st.tuples(*[st.floats(1, 100)] * 5), min_size=4, max_size=4)


@given(scores)
def test_the_order_of_the_tasks_does_not_matter(rows: list[tuple[float, ...]]) -> None:
    matrix = replace(MATRIX, scores=tuple(rows))
    backwards = ScoreMatrix(
        stages=matrix.stages,
        tasks=matrix.tasks[::-1],
        learned_at=matrix.learned_at[::-1],
        scores=tuple(row[::-1] for row in matrix.scores),
    )
    first, second = continual_metrics(matrix, RANDOM), continual_metrics(backwards, RANDOM)
    for name, value in first._asdict().items():
        assert getattr(second, name) == pytest.approx(value, abs=1e-9)


@given(scores, st.floats(0.1, 10))
def test_shares_know_no_unit_and_differences_carry_it(rows: list[tuple[float, ...]], unit: float) -> None:
    matrix = replace(MATRIX, scores=tuple(rows))
    scaled = replace(MATRIX, scores=tuple(tuple(unit * score for score in row) for row in rows))
    plain = continual_metrics(matrix, RANDOM)
    other = continual_metrics(scaled, {task: unit * score for task, score in RANDOM.items()})
    for name in ("plasticity", "forgetting_mean", "forgetting_worst", "stability"):
        assert getattr(other, name) == pytest.approx(getattr(plain, name), rel=1e-6, abs=1e-6)
    for name in ("backward_transfer", "forgetting_from_best_mean", "forward_transfer"):
        assert getattr(other, name) == pytest.approx(unit * getattr(plain, name), rel=1e-6, abs=1e-6)


@given(scores)
def test_forgetting_is_at_least_the_loss_since_a_task_was_learned(rows: list[tuple[float, ...]]) -> None:
    """Independent bound: the best score before T is no less than the score when the task was learned."""
    matrix = replace(MATRIX, scores=tuple(rows))
    found = forgetting_from_best(matrix)
    assert (found["birds"] + found["genres"]) / 2 >= -backward_transfer(matrix) - 1e-9


def test_an_encoder_that_never_changes_forgets_and_transfers_nothing() -> None:
    still = replace(MATRIX, scores=(MATRIX.scores[0],) * 4)
    found = continual_metrics(still, RANDOM)
    assert found.plasticity == found.forgetting_mean == found.backward_transfer == 0.0
    assert not math.copysign(1, found.plasticity) < 0
    assert set(found.forgetting_from_best.values()) == {0.0} and found.stability == 100.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": MATRIX.scores[:3]}, "scores must be 4 rows, one per stage, of 5 numbers, one per task"),
        ({"scores": tuple(row[:4] for row in MATRIX.scores)}, "scores must be 4 rows"),
        ({"tasks": ("a", "a", "b", "c", "d")}, "must have different names each"),
        ({"learned_at": (0, 0, 1, 2, 4)}, r"learned_at is \[0, 0, 1, 2, 4\]; give each task a stage from 0 to 3"),
        ({"learned_at": (0, 0, 1)}, "learned_at is"),
    ],
)
def test_a_matrix_whose_parts_do_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MATRIX, **changes)


def test_what_cannot_be_stated_is_refused_and_not_made_up() -> None:
    two = ScoreMatrix(stages=("base", "bio"), tasks=("general", "birds"), learned_at=(0, 1), scores=((1, 1), (1, 1)))
    with pytest.raises(ValueError, match="no task was learned before the last stage; backward transfer needs two"):
        backward_transfer(two)
    with pytest.raises(ValueError, match=r"target tasks \['birds'\] need scores at random, given are \['genres'\]"):
        forward_transfer(two, {"genres": 1.0})
    with pytest.raises(ValueError, match="must be the same and at least one"):
        continual_metrics(replace(MATRIX, learned_at=(1, 1, 1, 2, 3)), {t: 1.0 for t in MATRIX.tasks})
