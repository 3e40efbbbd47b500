"""How many trials fit a cluster, and what the tuner makes of Tune's own words."""

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.search import tuner
from sonar.search.tuner import plan_slots


@pytest.mark.parametrize(
    ("num_workers", "cluster", "limit", "resources", "num_concurrent", "threads"),
    [
        (1, {"CPU": 2.0}, None, {"CPU": 1.0}, 2, 1),
        (1, {"CPU": 8.0}, 3, {"CPU": 2.0}, 3, 2),
        (1, {"CPU": 8.0}, 99, {"CPU": 1.0}, 8, 1),
        (1, {"CPU": 8.0, "GPU": 2.0}, None, {"CPU": 1.0, "GPU": 1.0}, 2, 1),
        (1, {"CPU": 8.0, "GPU": 0.0}, None, {"CPU": 1.0}, 8, 1),
        (4, {"CPU": 64.0, "GPU": 8.0}, None, {"CPU": 0.01}, 2, 1),
        (4, {"CPU": 64.0, "GPU": 8.0}, 1, {"CPU": 0.01}, 1, 1),
    ],
)
def test_slots_of_known_clusters(
    num_workers: int,
    cluster: dict[str, float],
    limit: int | None,
    resources: dict[str, float],
    num_concurrent: int,
    threads: int,
) -> None:
    assert plan_slots(num_workers, cluster, limit) == (resources, num_concurrent, threads)


@given(num_workers=st.integers(1, 5), cpus=st.integers(1, 64), limit=st.none() | st.integers(1, 80))
def test_all_concurrent_trials_and_their_workers_fit_the_cluster(num_workers: int, cpus: int, limit: int) -> None:
    try:
        slots = plan_slots(num_workers, {"CPU": float(cpus)}, limit)
    except ValueError:
        assert cpus <= num_workers  # a trial and its workers hold more than the workers alone
        return
    nested = num_workers if num_workers > 1 else 0  # Train's workers hold a CPU each
    assert slots.num_concurrent * (slots.resources["CPU"] + nested) <= cpus
    assert 1 <= slots.num_concurrent <= (limit or cpus)
    assert slots.threads * slots.num_concurrent <= cpus


@pytest.mark.parametrize(
    ("num_workers", "cluster", "message"),
    [
        (4, {"CPU": 2.0}, "a trial of 4 workers needs .*CPUs; the cluster has 2. Lower training.num_workers or add"),
        (2, {"CPU": 64.0, "GPU": 1.0}, "a trial of 2 workers needs .*GPUs; the cluster has 1. Lower"),
        (1, {}, "a trial of 1 workers needs .*CPUs; the cluster has 0"),
    ],
)
def test_a_trial_that_does_not_fit_says_what_it_needs(
    num_workers: int, cluster: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_slots(num_workers, cluster)


class EndedTrial:
    """What Tune keeps of a trial that raised: the path of its error file, or None."""

    def __init__(self, error_file: str | None) -> None:
        self.error_file = error_file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Failure # 1\n  traceback\nValueError: no class is left\n\n", "ValueError: no class is left"),
        ("Failure # 1\nfirst\nFailure # 2\nRuntimeError: worker died\n", "RuntimeError: worker died"),
        ("", "the trial ended without a reason"),
        (None, "the trial ended without a reason"),
    ],
)
def test_a_failure_becomes_one_line_of_reason(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "error.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert tuner._reason(cast(Any, EndedTrial(str(path)))) == reason
    assert tuner._reason(cast(Any, EndedTrial(None))) == "the trial ended without a reason"


def test_our_metrics_are_told_from_what_tune_puts_beside_them() -> None:
    result = {
        "plasticity": 1,
        "model/loss": 2.5,
        "step": 7,
        "training_iteration": 3,
        "time_total_s": 9.0,
        "done": True,
        "checkpoint_path": "/x",
        "has_ended": True,
        "trial_id": "abc",
        "config": {"a": 1},
    }
    assert tuner._numbers(result) == {"plasticity": 1.0, "model/loss": 2.5}
