"""What a forgetting curve says, worked out by hand and by brute force; and a file without doubles."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.evaluate.curve import CurvePoint, EvaluationConfig, add_point, read_curve, summarise_curve


def point(step: int, forgetting: float, stage: str = "model") -> CurvePoint:
    return CurvePoint(stage, step, plasticity=1.0, forgetting_rate=forgetting, forgetting_worst=2.0, scores={"a": 3.0})


def test_a_run_that_forgets_and_recovers_shows_its_gap() -> None:
    """0 at the base, then 4, 9, 5, 2, and 3 at the end: 9 - 3, at step 20; at step 40 it is back."""
    curve = [point(0, 0.0, "base"), *(point(10 * n, f) for n, f in enumerate((4.0, 9.0, 5.0, 2.0), start=1))]
    summary = summarise_curve([*curve, point(50, 3.0, "end")])
    assert summary == (2.0, 9.0, 20, 6.0, 20)


def test_a_run_that_ends_at_its_worst_has_no_gap() -> None:
    summary = summarise_curve([point(0, 0.0, "base"), point(10, 1.0), point(20, 4.0, "end")])
    assert (summary.stability_gap, summary.forgetting_max_step, summary.recovery_steps) == (0.0, 20, 0)


def test_the_base_is_no_point_of_the_curve() -> None:
    """A run that gains on the prior tasks has a highest forgetting rate below 0."""
    summary = summarise_curve([point(0, 0.0, "base"), point(10, -3.0), point(20, -5.0, "end")])
    assert (summary.forgetting_max, summary.forgetting_min, summary.stability_gap) == (-3.0, -5.0, 2.0)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12))
def test_the_summary_is_that_of_the_definition(rates: list[float]) -> None:
    summary = summarise_curve([point(7 * n, rate) for n, rate in enumerate(rates)])
    assert (summary.forgetting_min, summary.forgetting_max) == (min(rates), max(rates))
    worst = summary.forgetting_max_step // 7
    assert rates[worst] == max(rates) and max(rates) not in rates[:worst]
    assert summary.stability_gap == max(rates) - rates[-1] >= 0
    back = worst + summary.recovery_steps // 7
    assert rates[back] <= rates[-1] and all(rate > rates[-1] for rate in rates[worst:back])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([point(0, 0.0, "base")], "the curve has no point after the base"),
        ([point(2, 0.0), point(2, 0.0)], r"the steps of a curve must ascend, given are \[2, 2\]"),
    ],
)
def test_what_is_no_curve_is_refused(points: list[CurvePoint], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarise_curve(points)


def test_a_repeated_step_replaces_its_point_and_those_after_it(tmp_path: Path) -> None:
    assert read_curve(tmp_path) == []
    for step in (0, 10, 20, 30):
        add_point(point(step, float(step)), tmp_path)
    add_point(point(20, -1.0), tmp_path)
    assert read_curve(tmp_path) == [point(0, 0.0), point(10, 10.0), point(20, -1.0)]


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ValueError, match="every is -1; give the steps between two evaluations, or 0"):
        EvaluationConfig(every=-1)
    for alphas in ((0.5, 0.25), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match=r"alphas are .*; give rising numbers between 0 and 1, without both"):
            EvaluationConfig(alphas=alphas)
