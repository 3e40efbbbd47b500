"""When stages begin, take turns and end: legs, plateaus, and every one of them resumed bit by bit."""

from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import STEPS, Recorder, changed, make_base, make_config, make_mixture, tensors

from sonar.checkpoint import Checkpoint, load_state, save_state
from sonar.experiment import TrialConfig
from sonar.train.adapt import Mixture, adapt
from sonar.train.loop import StepReport
from sonar.train.optim import learning_rate
from sonar.train.plateau import Plateau
from sonar.train.settings import TrainingConfig
from sonar.train.stages import Hooks, Leg, Worker, alternating_legs

WINDOW = 3
TURNS: dict[str, Any] = {
    "training__schedule": "interleaved",
    "training__interleave_steps": 4,
    "training__reset_heads": True,
    "training__model_steps": 9,
}


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return make_mixture()


def adapt_tiny(config: TrialConfig, mixture: Mixture, hooks: Hooks) -> Checkpoint:
    return adapt(make_base(dropout=0.1), mixture, config.adapt_config(), hooks, Worker())


def all_tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return tensors(checkpoint.encoder, checkpoint.tokenizer, checkpoint.predictor)


def turns(reports: list[StepReport]) -> list[tuple[str, int, int]]:
    """Stage, first and last step of every unbroken stretch."""
    stretches = [list(stretch) for _, stretch in groupby(reports, lambda report: report.stage)]
    return [(stretch[0].stage, stretch[0].step, stretch[-1].step) for stretch in stretches]


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3], None),  # it rises
        ([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2], 9),
        ([0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9], 6),  # it falls
        ([0.1, 0.1, 0.1, 0.1, 0.1], None),  # no two windows yet
        ([0.1, 0.1, 0.1, 0.15, 0.15, 0.15], 6),  # by exactly the gain is not by more
    ],
)
def test_a_plateau_is_a_window_no_better_than_the_one_before(values: list[float], ends: int | None) -> None:
    assert first_end(Plateau("accuracy", WINDOW, 0.05 + 1e-12), values) == ends


def first_end(plateau: Plateau, values: list[float]) -> int | None:
    watched: tuple[float, ...] = ()
    for step, value in enumerate(values, 1):
        watched = plateau.watched(watched, value)
        if plateau.is_reached(watched, step):
            return step
    return None


@given(
    window=st.integers(1, 5),
    gain=st.sampled_from([0.0, 0.125, 0.5]),
    eighths=st.lists(st.integers(0, 8), max_size=30),
)
def test_the_rule_equals_its_definition_over_all_windows(window: int, gain: float, eighths: list[int]) -> None:
    sums = [sum(eighths[end - window : end]) for end in range(window, len(eighths) + 1, window)]
    rises = [(later - before) / 8 / window for before, later in pairwise(sums)]
    ends = next((i for i, rise in enumerate(rises) if rise <= gain + 1e-12), None)
    expected = None if ends is None else (ends + 2) * window
    assert first_end(Plateau("accuracy", window, gain + 1e-12), [value / 8 for value in eighths]) == expected


PLATEAU: dict[str, Any] = {
    "training__reset_heads": True,
    "training__head_steps": 20,
    "training__plateau_window": WINDOW,
    "training__plateau_gain": 1.0,  # no window is better by more: over after two
    "training__tokenizer_steps": 2,
    "training__model_steps": 2,
}


def test_the_head_warm_up_ends_at_a_plateau_and_the_next_stage_begins(mixture: Mixture) -> None:
    recorder = Recorder()
    adapt_tiny(make_config(**PLATEAU), mixture, recorder.hooks())
    assert turns(recorder.reports)[:2] == [("heads", 1, 2 * WINDOW), ("tokenizer", 1, 2)]
    heads = [report for report in recorder.reports if report.stage == "heads"]
    assert [report.num_steps for report in heads] == [20] * 5 + [6]  # the last one tells that there are no more


def test_a_warm_up_that_may_end_early_keeps_its_rate_and_one_that_may_not_decays(mixture: Mixture) -> None:
    config = make_config(**PLATEAU)
    rates = []
    for window in (20, 0):
        recorder = Recorder()
        adapt_tiny(make_config(**{**PLATEAU, "training__plateau_window": window}), mixture, recorder.hooks())
        rates.append([report.metrics["lr"] for report in recorder.reports if report.stage == "heads"])
    assert rates[0] == [config.optim.head_lr] * 20
    assert rates[1][0] == config.optim.head_lr and rates[1][-1] == pytest.approx(config.optim.final_lr)


def test_every_stage_has_its_own_rate(mixture: Mixture) -> None:
    rates = {"optim__head_lr": 4e-4, "optim__tokenizer_lr": 2e-5, "optim__lr": 3e-3, "optim__warmup_fraction": 0.0}
    recorder = Recorder()
    adapt_tiny(make_config(training__reset_heads=True, **rates, training__plateau_window=0), mixture, recorder.hooks())
    peaks = {name: max(r.metrics["lr"] for r in recorder.reports if r.stage == name) for name in recorder.stages()}
    assert peaks == pytest.approx({"heads": 4e-4, "tokenizer": 2e-5, "predictor": 4e-4, "model": 3e-3})


@pytest.mark.parametrize("save_every", [1, 2, 4, 5])
def test_a_warm_up_resumed_anywhere_ends_at_the_same_plateau(save_every: int, mixture: Mixture, tmp_path: Path) -> None:
    config = make_config(**PLATEAU)
    whole, states = run_and_keep_states(config, mixture, tmp_path, save_every)
    for path in states[: 6 // save_every + 1]:
        recorder = Recorder()
        resumed = adapt_tiny(config, mixture, recorder.hooks(state=load_state(path)))
        assert changed(whole, all_tensors(resumed)) == []
        assert all(report.step <= 6 for report in recorder.reports if report.stage == "heads")


def run_and_keep_states(
    config: TrialConfig, mixture: Mixture, folder: Path, save_every: int
) -> tuple[dict[str, torch.Tensor], list[Path]]:
    paths: list[Path] = []

    def save(state: dict[str, Any]) -> None:
        paths.append(folder / f"{len(paths)}.pt")
        save_state(state, paths[-1])

    return all_tensors(adapt_tiny(config, mixture, Recorder().hooks(save=save, save_every=save_every))), paths


def test_interleaved_steps_alternate_in_blocks_after_the_warm_up(mixture: Mixture) -> None:
    recorder = Recorder()
    config = make_config(**TURNS)
    adapt_tiny(config, mixture, recorder.hooks())
    assert turns(recorder.reports) == [
        ("heads", 1, STEPS), ("tokenizer", 1, 4), ("model", 1, 4), ("tokenizer", 5, STEPS), ("model", 5, 9),
    ]  # fmt: skip
    for stage, num_steps in (("tokenizer", STEPS), ("model", 9)):
        rates = [report.metrics["lr"] for report in recorder.reports if report.stage == stage]
        assert rates == [learning_rate(step, num_steps, config.optim) for step in range(num_steps)]


def test_the_model_learns_the_codes_of_the_tokenizer_as_it_is_then(mixture: Mixture) -> None:
    """Its first labels come from the tokenizer's first block, not from its last one."""
    short = {"training__tokenizer_steps": 4, "training__model_steps": 4, "training__predictor_steps": 0}
    staged, turned = Recorder(), Recorder()
    adapt_tiny(make_config(**short), mixture, staged.hooks())
    adapt_tiny(make_config(**{**short, **TURNS, "training__reset_heads": False, "training__model_steps": 4,
                              "training__interleave_steps": 2}), mixture, turned.hooks())  # fmt: skip
    losses = [[r.metrics["loss"] for r in recorder.reports if r.stage == "tokenizer"] for recorder in (staged, turned)]
    assert losses[0] == losses[1]  # nothing of the model reaches the tokenizer
    models = [[r.metrics["loss"] for r in recorder.reports if r.stage == "model"] for recorder in (staged, turned)]
    assert models[0][0] != models[1][0]  # one saw the tokenizer after four steps, the other after two


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory, mixture: Mixture) -> tuple[dict[str, torch.Tensor], list[Path]]:
    """An interleaved run, and its state after every step."""
    folder = tmp_path_factory.mktemp("states")
    whole, states = run_and_keep_states(make_config(**TURNS), mixture, folder, save_every=1)
    assert len(states) == 2 * STEPS + 9
    return whole, states


@pytest.mark.parametrize(
    "done", [2, STEPS, STEPS + 1, STEPS + 4, STEPS + 6, STEPS + 8, STEPS + 9, STEPS + 10, STEPS + 11, 2 * STEPS + 9]
)  # in the middle and at the end of every leg
def test_an_interleaved_run_resumed_in_any_leg_equals_one_that_never_stopped(
    done: int, turned: tuple[dict[str, torch.Tensor], list[Path]], mixture: Mixture
) -> None:
    whole, states = turned
    state = load_state(states[done - 1])
    assert sum(stage["step"] for stage in state["stages"].values()) == done
    recorder = Recorder()
    resumed = adapt_tiny(make_config(**TURNS), mixture, recorder.hooks(state=state))
    assert changed(whole, all_tensors(resumed)) == []
    assert len(recorder.reports) == len(states) - done


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(1, 15))
def test_alternating_legs_visit_every_step_once_in_turns(num_steps: list[int], block: int) -> None:
    """Against a simulation that deals blocks until nothing is left."""
    names = [f"stage{i}" for i in range(len(num_steps))]
    left, expected = dict(zip(names, num_steps, strict=True)), []
    while any(left.values()):
        for name in names:
            if left[name]:
                left[name] -= min(block, left[name])
                expected.append(Leg(name, dict(zip(names, num_steps, strict=True))[name] - left[name]))
    assert list(alternating_legs(dict(zip(names, num_steps, strict=True)), block)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "mixed"}, r"schedule is 'mixed'; give one of \['staged', 'interleaved'\]"),
        ({"interleave_steps": 0}, "interleave_steps is 0; it must be >= 1"),
        ({"accumulation": 0}, "accumulation is 0; it must be >= 1"),
        ({"batch_size": 12, "num_workers": 2, "accumulation": 4},
         "batch_size 12 does not divide by num_workers 2 x accumulation 4; give a multiple"),
        ({"plateau_window": -1}, "plateau_window is -1; it must be >= 0"),
        ({"plateau_gain": -0.1}, "plateau_gain is -0.1; it must be >= 0"),
        ({"churn_every": -1}, "churn_every is -1; it must be >= 0"),
    ],
)  # fmt: skip
def test_schedules_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**values)
