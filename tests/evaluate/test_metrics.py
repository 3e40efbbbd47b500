"""The metrics against the paper's own numbers and their closed forms."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.evaluate.metrics import (
    forgetting_rate,
    mean_forgetting,
    plasticity,
    worst_class,
    worst_forgetting,
    worst_task,
)

scores = st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 100), min_size=1)
positive = st.floats(0.1, 100)


def test_the_papers_example_loses_60_6_percent() -> None:
    assert round(forgetting_rate(34.8, 13.7), 1) == 60.6


@given(before=positive, share=st.floats(0, 2))
def test_a_kept_share_is_forgotten_by_the_rest(before: float, share: float) -> None:
    assert forgetting_rate(before, before * share) == pytest.approx(100 * (1 - share), abs=1e-9)


@given(before=positive, after=positive, unit=st.floats(1e-3, 1e3))
def test_the_unit_of_the_score_does_not_matter(before: float, after: float, unit: float) -> None:
    assert forgetting_rate(unit * before, unit * after) == pytest.approx(forgetting_rate(before, after), abs=1e-6)


@given(scores)
def test_an_unchanged_encoder_neither_forgets_nor_gains(before: dict[str, float]) -> None:
    assert mean_forgetting(before, before) == worst_forgetting(before, before) == plasticity(before, before) == 0


@given(scores)
def test_the_order_of_the_tasks_does_not_matter_and_the_worst_is_no_less_than_the_mean(
    before: dict[str, float],
) -> None:
    after = {task: score * (1 + index) / 3 for index, (task, score) in enumerate(before.items())}
    backwards = dict(reversed(after.items()))
    assert mean_forgetting(before, backwards) == pytest.approx(mean_forgetting(before, after))
    assert worst_forgetting(before, after) >= mean_forgetting(before, after) - 1e-9


def test_means_over_tasks_are_of_shares_and_not_of_scores() -> None:
    before, after = {"a": 80.0, "b": 50.0}, {"b": 55.0, "a": 60.0}
    assert mean_forgetting(before, after) == pytest.approx((25.0 - 10.0) / 2)
    assert worst_forgetting(before, after) == pytest.approx(25.0)
    assert plasticity(before, after) == pytest.approx((-25.0 + 10.0) / 2)


@pytest.mark.parametrize("before", [0.0, -1.0])
def test_a_base_that_scores_nothing_has_no_rate(before: float) -> None:
    with pytest.raises(ValueError, match=f"the base scores {before} on a task, so no share of it can be stated"):
        forgetting_rate(before, 10.0)


@pytest.mark.parametrize("metric", [mean_forgetting, worst_forgetting, plasticity])
@pytest.mark.parametrize(("before", "after"), [({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {}), ({}, {})])
def test_different_tasks_are_not_compared(metric: object, before: dict[str, float], after: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be the same and at least one"):
        metric(before, after)  # type: ignore[operator]


@given(scores, st.randoms())
def test_the_worst_task_is_the_one_that_no_other_exceeds(before: dict[str, float], random: Random) -> None:
    after = {task: random.uniform(0, 100) for task in before}
    name, lost = worst_task(before, after)
    assert lost == forgetting_rate(before[name], after[name]) == worst_forgetting(before, after)
    assert all(forgetting_rate(before[task], after[task]) <= lost for task in before)


def test_the_worst_class_is_counted_in_points_so_that_one_of_score_0_takes_part() -> None:
    before = {"a": {"x": 0.0, "y": 50.0}, "b": {"x": 90.0}}
    assert worst_class(before, {"a": {"x": 10.0, "y": 30.0}, "b": {"x": 65.0}}) == ("b/x", 25.0)
    assert worst_class(before, before) == ("a/x", 0.0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"a": {"x": 1.0}}, {"a": {"y": 1.0}}, r"classes of task a before \['x'\] and after \['y'\] must be the same"),
        ({"a": {"x": 1.0}}, {"b": {"x": 1.0}}, "must be the same"),
        ({"a": {}}, {"a": {}}, "must be the same"),
        ({}, {}, "no prior task has classes to compare"),
    ],
)
def test_classes_of_different_tasks_are_not_compared(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        worst_class(before, after)
