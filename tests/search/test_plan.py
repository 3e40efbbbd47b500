"""A plan's cost is the measured one times the steps, and what cannot fit is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_config

from sonar.checkpoint import MODEL
from sonar.config import override
from sonar.search.disk import ModelBytes
from sonar.search.journal import Journal
from sonar.search.plan import (
    Interval,
    Measured,
    cost_of,
    first_suggestions,
    measured_before,
    quantiles,
    seconds_of,
)
from sonar.search.plan_probe import PROBE_STEPS, NoiseStore, probe
from sonar.search.prepare import Sources
from sonar.search.settings import RunOptions, settings_of
from sonar.search.space import Sweep, uniform
from sonar.search.tuner import TrialSlots

BASE = make_config(training__tokenizer_steps=10, training__predictor_steps=0, training__model_steps=30)
SWEEP = Sweep(
    domain="bio",
    base=BASE,
    space={"sampling.replay_ratio": uniform(0.3, 0.7)},
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=6,
)
MEASURED = Measured(
    basis="a test",
    step_s={"tokenizer": Interval(1.0, 2.0, 3.0), "model": Interval(0.1, 0.2, 0.4)},
    rest_s=Interval(5.0, 6.0, 7.0),
    size=ModelBytes(1_000_000, 3_000_000),
    num_steps={},
)
SLOTS = TrialSlots({"CPU": 2.0}, 4, 2)


def options(storage: Path, **more: Any) -> RunOptions:
    return RunOptions(sources=Sources("bio", "birds", ("music",)), storage=storage, seed=3, **more)


def test_a_trial_takes_its_steps_and_what_lies_beside_them() -> None:
    assert seconds_of(BASE, MEASURED) == pytest.approx((10 + 3 + 5, 20 + 6 + 6, 30 + 12 + 7))


def test_the_sweep_costs_its_anchors_and_trials_on_all_their_devices(tmp_path: Path) -> None:
    first = first_suggestions(SWEEP, options(tmp_path), 2)
    cost = cost_of(SWEEP, first, SLOTS, MEASURED)
    one = np.asarray(seconds_of(BASE, MEASURED))
    base = np.asarray(MEASURED.rest_s)  # the anchor "base" has no step, "dcpt" has all of them
    held = base + one + 6 * one
    assert cost.device_s == pytest.approx(tuple(2 * held))
    assert cost.clock_s == pytest.approx(tuple(held / 8 * 2))  # eight trials, four at a time: two rounds


def test_the_seeds_of_an_audit_cost_what_the_base_configuration_does_in_rounds_of_their_own(tmp_path: Path) -> None:
    first = first_suggestions(SWEEP, options(tmp_path), 2)
    without, audited = (cost_of(replace(SWEEP, audit_seeds=n), first, SLOTS, MEASURED) for n in (0, 5))
    held = np.asarray(without.device_s) / 2 + 5 * np.asarray(seconds_of(BASE, MEASURED))
    assert audited.device_s == pytest.approx(tuple(2 * held))
    assert audited.clock_s == pytest.approx(tuple(held / 13 * (2 + 2)))


def test_the_first_configurations_are_those_of_a_run_and_nothing_is_left(tmp_path: Path) -> None:
    first = first_suggestions(SWEEP, options(tmp_path / "runs"), 3)
    assert [one.trial_id for one in first] == ["anchor-base", "anchor-dcpt", "trial-000", "trial-001", "trial-002"]
    assert first == first_suggestions(SWEEP, options(tmp_path / "runs"), 3)
    assert list(tmp_path.iterdir()) == []


def write_sweep(folder: Path, steps_s: list[float], config: Any = BASE) -> None:
    """A sweep in which every trial took a second more than its training, and left a kilobyte."""
    clock = [0.0]
    with Journal(folder / "journal.jsonl", clock=lambda: clock[0]) as journal:
        sweep = Sweep(**SWEEP.__dict__ | {"base": config})
        journal.append("sweep_created", **settings_of(sweep, options(folder.parent)))
        for number, step_s in enumerate(steps_s):
            trial_id = f"trial-{number:03d}"
            journal.append("suggested", trial_id=trial_id, kind="search", params={})
            journal.append("started", trial_id=trial_id)
            journal.append("reported", trial_id=trial_id, step=1, metrics={"model/step_seconds": step_s})
            clock[0] += 30 * step_s + 1
            told = {"plasticity": 1.0, "forgetting_rate": 0.0, "train_seconds": 30 * step_s, "model/steps": 30}
            journal.append("told", trial_id=trial_id, metrics=told, checkpoint=None)
            checkpoint = folder / "trials" / trial_id / "checkpoint"
            checkpoint.mkdir(parents=True)
            (checkpoint / MODEL).write_bytes(b"0" * 1000)
            (checkpoint / "heads").write_bytes(b"0" * 500)


def test_an_earlier_sweep_over_the_same_audio_says_how_long_a_step_takes(tmp_path: Path) -> None:
    write_sweep(tmp_path / "before", [1.0, 2.0, 3.0])
    measured = measured_before(tmp_path, SWEEP, options(tmp_path))
    assert measured is not None and "3 trials of" in measured.basis
    assert measured.step_s == {"model": pytest.approx(quantiles([1.0, 2.0, 3.0]))}
    assert measured.rest_s == pytest.approx((1.0, 1.0, 1.0))
    assert (measured.size, measured.num_steps) == (ModelBytes(1000, 1500), {"model": 30})


def test_a_sweep_that_trained_otherwise_says_nothing(tmp_path: Path) -> None:
    write_sweep(tmp_path / "larger", [1.0], override(BASE, {"training.batch_size": 8}))
    write_sweep(tmp_path / "other_base", [1.0], override(BASE, {"base.pretrain.width": 64}))
    assert measured_before(tmp_path, SWEEP, options(tmp_path)) is None
    write_sweep(tmp_path / "same", [1.0])
    other = RunOptions(sources=Sources("bio", "bats"), storage=tmp_path)
    assert measured_before(tmp_path, SWEEP, other) is None
    assert measured_before(tmp_path, SWEEP, options(tmp_path)) is not None


def test_steps_that_follow_from_epochs_are_known_from_an_earlier_sweep_or_asked_for(tmp_path: Path) -> None:
    config = override(BASE, {"training.model_steps": None})
    with pytest.raises(ValueError, match=r"training.model_steps follows from .* --set training.model_steps=N"):
        seconds_of(config, MEASURED)
    assert seconds_of(config, MEASURED._replace(num_steps={"model": 30})) == seconds_of(BASE, MEASURED)


def test_a_probe_times_every_stage_and_measures_what_is_saved() -> None:
    pretrain = {"num_layers": 2, "width": 32, "ffn_width": 64, "num_heads": 2, "patch_width": 16, "position_kernel": 4}
    config = override(BASE, {"base.pretrain": pretrain | {"num_codes": 16, "code_width": 8, "batch_size": 4}})
    measured = probe(config, threads=1)
    assert measured.step_s.keys() == {"tokenizer", "predictor", "model"}
    assert all(0 < one.low <= one.typical <= one.high < 60 for one in measured.step_s.values())
    assert measured.rest_s is None and measured.base_s is not None and measured.base_s > 0
    assert 1e4 < measured.size.encoder < measured.size.checkpoint
    assert f"{PROBE_STEPS - 1} steps" in measured.basis


def test_noise_is_the_same_every_time_and_of_the_length_that_was_asked_for() -> None:
    store = NoiseStore("new", 3, 0.5)
    assert store.num_samples.tolist() == [8000] * 3
    assert np.array_equal(store.waveform(1)[100:110], store.waveform(1, 100, 10))
