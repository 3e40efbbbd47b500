"""The small base: resumed bit by bit, built in its three legs, each starting from the one before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Recorder, changed, make_store, tensors

from sonar.checkpoint import Checkpoint, load_state, save_state
from sonar.data.stream import ClipStore
from sonar.train import stages
from sonar.train.loop import Stage, StageState
from sonar.train.pretrain import PretrainConfig, pretrain
from sonar.train.stages import Hooks, Worker

LEGS = ["projection", "tokenizer", "model"]
CONFIG = PretrainConfig(
    num_layers=2,
    width=32,
    ffn_width=64,
    num_heads=2,
    patch_width=16,
    position_kernel=4,
    num_codes=16,
    code_width=8,
    projection_steps=4,
    tokenizer_steps=4,
    model_steps=4,
    batch_size=4,
    clip_seconds=0.5,
)


@pytest.fixture(scope="module")
def store() -> ClipStore:
    return make_store("prior", 10)


def build(store: ClipStore, hooks: Hooks) -> Checkpoint:
    return pretrain(store, np.arange(10), CONFIG, hooks, Worker())


def all_tensors(base: Checkpoint) -> dict[str, torch.Tensor]:
    return tensors(base.encoder, base.tokenizer, base.predictor)


def test_a_base_resumed_anywhere_equals_one_that_never_stopped(store: ClipStore, tmp_path: Path) -> None:
    paths: list[Path] = []

    def save(state: dict[str, Any]) -> None:
        paths.append(tmp_path / f"{len(paths)}.pt")
        save_state(state, paths[-1])

    recorder = Recorder()
    whole = all_tensors(build(store, recorder.hooks(save=save, save_every=2)))
    assert recorder.stages() == LEGS and len(paths) == 6
    for number, path in enumerate(paths):
        resumed = Recorder()
        assert changed(whole, all_tensors(build(store, resumed.hooks(state=load_state(path))))) == []
        assert len(resumed.reports) == 12 - 2 * (number + 1)


def test_each_leg_starts_from_the_one_before(store: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begins: dict[str, dict[str, torch.Tensor]] = {}
    ends: dict[str, dict[str, torch.Tensor]] = {}
    run_stage = stages.run_stage

    def watch(stage: Stage, *arguments: Any, **named: Any) -> StageState:
        student = stage.objective.student
        begins[stage.name] = tensors(getattr(student, "encoder", student))
        state = run_stage(stage, *arguments, **named)
        ends[stage.name] = tensors(getattr(student, "encoder", student))
        return state

    monkeypatch.setattr(stages, "run_stage", watch)
    base = build(store, Recorder().hooks())
    assert changed(ends["projection"], begins["tokenizer"]) == []
    assert changed(ends["projection"], begins["model"]) == []
    assert base.tokenizer is not None
    assert changed(ends["tokenizer"], tensors(base.tokenizer.encoder)) == []
    assert changed(ends["model"], tensors(base.encoder)) == []
    assert changed(ends["model"], begins["model"])


def test_only_its_own_rows_are_trained_on_and_nothing_is_distilled(store: ClipStore, monkeypatch: Any) -> None:
    seen: set[str] = set()
    recorder = Recorder()
    waveform = type(store).waveform

    def watch(self: ClipStore, row: int, *arguments: Any) -> np.ndarray:
        seen.add(self.clips[row].clip_id)
        return waveform(self, row, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "waveform", watch)
    pretrain(store, np.array([1, 3, 5, 7]), CONFIG, recorder.hooks(), Worker())
    assert seen == {f"prior/{row}.wav" for row in (1, 3, 5, 7)}
    names = {name for report in recorder.reports for name in report.metrics}
    assert not names & {"tokenizer_drift", "feature_drift", "contrastive"}


def test_a_base_has_all_that_an_adaptation_needs(store: ClipStore) -> None:
    base = build(store, Recorder().hooks())
    assert base.tokenizer is not None and base.tokenizer.estimator is not None and base.predictor is not None
    assert base.tokenizer.config.encoder == base.encoder.config == CONFIG.encoder_config()
    assert base.predictor.config.num_codes == base.tokenizer.codebook.num_codes == CONFIG.num_codes
    assert torch.allclose(base.tokenizer.codebook.vectors.norm(dim=1), torch.ones(CONFIG.num_codes), atol=1e-6)


def test_too_few_patches_for_the_codebook_are_refused_with_what_to_do(store: ClipStore) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="96 tokens for 128 codes: give a larger first batch"):
        pretrain(store, np.arange(10), replace(CONFIG, num_codes=128), Recorder().hooks(), Worker())
