"""Noise of the axes: closed forms of normal theory, and simulations of the model it states."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluated import evaluation, make_predictions, noisier

from sonar.evaluate.bootstrap import Interval, Resampling, WeightedScorer, draw_weights
from sonar.evaluate.noise import (
    AxisNoise,
    Noise,
    axis_noise,
    describe_noise,
    measure_noise,
    read_noise,
    resolution,
    resolves,
    sigma_interval,
    verdict,
)
from sonar.evaluate.run import compare


def axis(sigma: float = 3.0, own: float = 2.0, clips: float = 4.0, runs: int = 5) -> AxisNoise:
    return AxisNoise((0.0,) * runs, 0.0, sigma, sigma_interval(sigma, runs), clips, own)


def test_the_interval_of_sigma_is_that_of_the_chi_square_table() -> None:
    # chi-square of 4 degrees of freedom: 0.484 and 11.143
    assert sigma_interval(2.0, 5) == pytest.approx((2 * math.sqrt(4 / 11.143), 2 * math.sqrt(4 / 0.484)), rel=1e-3)


def test_the_interval_of_sigma_covers_it_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(0.0, 3.0, size=(4000, 4)).std(axis=1, ddof=1)
    covered = [not sigma_interval(float(sigma), 4).excludes(3.0) for sigma in draws]
    assert sum(covered) / 4000 == pytest.approx(0.95, abs=0.015)


def test_parts_of_the_noise_are_told_apart() -> None:
    """Many runs of the stated model: training 3; other clips 4 for all runs alike, and 2 for a run alone."""
    rng, runs, resamples = np.random.default_rng(0), 400, 3000
    training, own_now = 3.0 * rng.standard_normal((runs, 1)), 2.0 * rng.standard_normal((runs, 1))
    shared, own = 4.0 * rng.standard_normal((1, resamples)), 2.0 * rng.standard_normal((runs, resamples))
    observed = 10.0 + training + own_now
    found = axis_noise(np.concatenate([observed, observed + shared + own], axis=1))
    assert found.mean == pytest.approx(10.0, abs=0.6)
    assert found.sigma == pytest.approx(math.sqrt(9 + 4), rel=0.1)
    assert found.own_clip_sigma == pytest.approx(2.0, rel=0.02)
    assert found.clip_sigma == pytest.approx(math.sqrt(16 + 4), rel=0.05)
    assert math.sqrt(found.training_variance) == pytest.approx(3.0, rel=0.15)
    assert found.total_sigma == pytest.approx(math.sqrt(9 + 16 + 4), rel=0.1)


def test_two_runs_tell_their_own_noise_without_bias() -> None:
    rng = np.random.default_rng(0)
    shared, own = 4.0 * rng.standard_normal((1, 20_000)), 2.0 * rng.standard_normal((2, 20_000))
    assert axis_noise(np.concatenate([np.zeros((2, 1)), shared + own], axis=1)).own_clip_sigma == pytest.approx(2, 0.03)


def test_where_a_seed_is_chance_on_every_clip_the_clips_explain_its_whole_sigma() -> None:
    """So that what the resamples say of a run's own noise can be taken off the variance over seeds."""
    over_seeds, of_clips = [], []
    for task in range(12):
        made = make_predictions(task, num_classes=5, recordings=6)
        weights = np.concatenate([np.ones((1, 30)), draw_weights(30, 300, np.random.default_rng(task))])
        seeds = [noisier(made, 100 * task + seed) for seed in range(20)]
        found = axis_noise(np.stack([WeightedScorer(seed, "macro_f1")(weights).score for seed in seeds]))
        over_seeds.append(found.sigma**2)
        of_clips.append(found.own_clip_sigma**2)
    assert math.sqrt(np.mean(of_clips) / np.mean(over_seeds)) == pytest.approx(1.0, abs=0.12)


def test_a_difference_of_the_smallest_size_is_found_in_four_of_five_comparisons() -> None:
    made, runs = axis(), 3
    rng, standard_error = np.random.default_rng(1), made.smallest_difference(runs) / 2.8016
    spread = math.sqrt(made.training_variance + made.own_clip_sigma**2)
    sides = rng.normal(0.0, spread, size=(2, 20_000, runs)).mean(axis=2)
    found = np.abs(sides[1] + made.smallest_difference(runs) - sides[0]) > 1.96 * standard_error
    assert found.mean() == pytest.approx(0.80, abs=0.01)
    alarms = np.abs(sides[1] - sides[0]) > 1.96 * standard_error
    assert alarms.mean() == pytest.approx(0.05, abs=0.005)


def test_smallest_differences_are_in_closed_form() -> None:
    single = (1.959964 + 0.841621) * math.sqrt(2.0) * 3.0  # both z, and sigma of a difference
    assert axis().smallest_difference() == pytest.approx(single, rel=1e-5)
    assert axis().smallest_difference(4) == pytest.approx(single / 2, rel=1e-5)
    assert axis(own=5.0).smallest_difference() == pytest.approx(single * 5 / 3, rel=1e-5)  # clips alone give more


@pytest.mark.parametrize("difference", [0.5, 1.0, 4.0, 11.0, 50.0])
def test_the_runs_that_are_asked_for_are_enough_and_no_more(difference: float) -> None:
    made = axis()
    needed = made.runs_needed(difference)
    assert made.smallest_difference(needed) <= difference + 1e-6
    assert needed == 1 or made.smallest_difference(needed - 1) > difference


def test_the_clips_that_are_asked_for_are_enough() -> None:
    made, difference, runs = axis(), 6.0, 5
    factor = made.clips_needed(difference, runs)
    on_more = axis(sigma=math.sqrt(made.training_variance + 4.0 / factor), own=2.0 / math.sqrt(factor))
    assert on_more.smallest_difference(runs) == pytest.approx(difference)
    assert math.isinf(made.clips_needed(1.0, runs))  # training alone varies more
    assert made.clips_needed(1.0, 1000) < 1.0  # seeds alone do it


def test_the_verdict_says_what_would_resolve_it() -> None:
    assert verdict("forgetting_rate", axis(sigma=0.1, own=0.0, clips=0.2), 2.0).startswith(
        "forgetting rate: one run against one resolves 2 % (the smallest is 0.4 %)"
    )
    told = verdict("forgetting_rate", axis(), 3.9)
    assert told == (
        "forgetting rate: 3.9 % is below the noise of one run (sigma 4.6): compare at least 10 seeds a side; "
        "more clips alone do not help 5 seeds, as training itself varies too much"
    )
    assert verdict("plasticity", axis(sigma=2.2), 4.0).endswith("at least 5 seeds a side")
    assert verdict("plasticity", axis(sigma=2.2), 3.0).endswith(
        "at least 9 seeds a side, or 5 seeds a side on 2.0 times the clips"
    )
    assert "is not far enough above the noise" in verdict("plasticity", axis(), 5.0)


def test_a_difference_counts_from_the_smallest_one_on() -> None:
    noise = Noise(axis(sigma=1.0, own=0.5), axis(), ("a", "b"), {})
    limit = axis().smallest_difference(2)
    assert resolves(noise, -limit, num_runs=2) and not resolves(noise, 0.99 * limit, num_runs=2)
    assert resolves(noise, 4.0, "plasticity") and not resolves(noise, 4.0, "forgetting_rate")
    with pytest.raises(ValueError, match="no axis is called 'cost'; there are plasticity and forgetting_rate"):
        resolves(noise, 1.0, "cost")
    with pytest.raises(ValueError, match="the difference to resolve is 0; give percent above 0"):
        axis().runs_needed(0)


def runs_of_seeds() -> tuple[dict[str, object], object]:
    birds, general = make_predictions(1), make_predictions(2)
    base = evaluation(("birds", "target", birds), ("general", "prior", general))
    seeds = {
        f"seed-{seed}": evaluation(
            ("birds", "target", noisier(birds, seed)), ("general", "prior", noisier(general, 50 + seed))
        )
        for seed in range(4)
    }
    return seeds, base


def test_measured_values_are_those_that_the_runs_were_told_with(tmp_path: Path) -> None:
    runs, base = runs_of_seeds()
    found = measure_noise(runs, {"seed-4": "diverged"}, base, Resampling(num=300))
    told = [compare(base, run) for run in runs.values()]
    assert found.plasticity.values == pytest.approx([each.plasticity for each in told])
    assert found.forgetting_rate.values == pytest.approx([each.forgetting_rate for each in told])
    assert found.forgetting_rate.sigma == pytest.approx(np.std([e.forgetting_rate for e in told], ddof=1))
    assert found.runs == ("seed-0", "seed-1", "seed-2", "seed-3") and found.failed == {"seed-4": "diverged"}
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(describe_noise(found, 1.0, {"config": {}})))
    assert read_noise(path) == found
    assert json.loads(path.read_text())["resolution"]["plasticity"] == resolution(found.plasticity, 1.0)._asdict()


def test_one_run_has_no_noise_and_the_failures_are_told() -> None:
    runs, base = runs_of_seeds()
    with pytest.raises(ValueError, match="needs two finished runs or more, and there are 1; seed-1 failed: no codes"):
        measure_noise({"seed-0": runs["seed-0"]}, {"seed-1": "no codes"}, base, Resampling())


def test_a_file_that_is_no_audit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make one by `sonar noise`"):
        read_noise(tmp_path / "noise.json")
    for text in ("[]", "{", '{"plasticity": {}}', '{"plasticity": {"values": [1], "sigma_interval": [1]}}'):
        (tmp_path / "noise.json").write_text(text)
        with pytest.raises(ValueError, match="holds no noise audit"):
            read_noise(tmp_path / "noise.json")


def test_an_interval_survives_the_file(tmp_path: Path) -> None:
    noise = Noise(axis(), axis(sigma=1.0), ("a", "b"), {})
    (tmp_path / "noise.json").write_text(json.dumps(describe_noise(noise, 1.0, {})))
    assert isinstance(read_noise(tmp_path / "noise.json").plasticity.sigma_interval, Interval)
