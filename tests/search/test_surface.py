"""The simulated surface that bench/search.py compares searches on is what it says of itself."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.evaluate.curve import CurvePoint, summarise_curve
from sonar.search.dominance import hypervolume, non_dominated
from sonar.search.halving import DIRECTIONS
from sonar.search.space import SONAR_SPACE, LogUniform, Uniform

bench = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "bench" / "surface.py")))
seeds = st.integers(0, 1000)


def drawn(seed: int, count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(count):
        point = {}
        for key, dimension in SONAR_SPACE.items():
            assert isinstance(dimension, Uniform | LogUniform)
            ends = np.array([dimension.low, dimension.high])
            is_log = isinstance(dimension, LogUniform)
            point[key] = float(np.exp(rng.uniform(*np.log(ends))) if is_log else rng.uniform(*ends))
        points.append(point)
    return points


@given(seeds)
def test_no_configuration_dominates_a_point_of_the_front(seed: int) -> None:
    surface = bench.Surface(seed)
    front = [surface.final(surface.on_front(freedom)) for freedom in np.linspace(0, 1, 20)]
    others = [surface.final(params) for params in drawn(seed, 200)]
    assert non_dominated([*front, *others], DIRECTIONS)[: len(front)].all()


@pytest.mark.parametrize("reference", [(-1.0, 28.0), (0.0, 5.0), (-1.0, 25.0)])
def test_the_closed_form_is_the_hypervolume_of_many_points_of_the_front(reference: tuple[float, float]) -> None:
    surface = bench.Surface(3)
    front = [surface.final(surface.on_front(freedom)) for freedom in np.linspace(0, 1, 4000)]
    measured = hypervolume(front, DIRECTIONS, reference)
    assert bench.true_hypervolume(reference) == pytest.approx(measured, rel=1e-3)


@given(seeds)
def test_a_curve_ends_where_the_trial_ends_and_its_spike_comes_early_and_recovers(seed: int) -> None:
    surface = bench.Surface(seed)
    params = surface.on_front(0.2)  # a trial that hardly forgets in the end
    steps = range(1, surface.num_steps + 1)
    values = [surface.true(params, step) for step in steps]
    assert values[-1] == pytest.approx(surface.final(params))
    points = [CurvePoint("model", step, *value, 0.0, {}) for step, value in zip(steps, values, strict=True)]
    summary = summarise_curve(points)
    assert summary.stability_gap > 2.0
    assert 0.02 < summary.forgetting_max_step / surface.num_steps < 0.1
    late = [forgetting for step, (_, forgetting) in zip(steps, values, strict=True) if step >= 0.4 * surface.num_steps]
    assert max(late) - late[-1] < 0.1 * summary.stability_gap


def test_noise_is_that_of_the_seed_and_of_the_evaluation_and_the_same_when_asked_again() -> None:
    surface = bench.Surface(1, noise=bench.Noise(seed=2.0, evaluation=0.5))
    params = drawn(1, 1)[0]
    end = surface.num_steps
    found = np.array([surface.measured(params, end, trial) for trial in range(2000)]) - surface.final(params)
    assert found.std(axis=0) == pytest.approx(np.hypot(2.0, 0.5), rel=0.06)
    assert abs(found.mean(axis=0)).max() < 0.2
    of_trial = np.array([surface.measured(params, end - 1 + place % 2, 7) for place in range(2)])
    assert abs(of_trial[0] - of_trial[1]).max() < 3.0  # what the seed adds is the same
    assert surface.measured(params, 40, 5) == surface.measured(params, 40, 5)
