"""Two workers under Ray Train finish one adaptation and leave a checkpoint that loads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import write_store
from tiny import STEPS, changed, make_base, make_config, make_store, tensors
from torch import nn

from sonar.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sonar.data.stream import ClipStore
from sonar.train.adapt import Mixture
from sonar.train.feature_folder import FeatureFolder
from sonar.train.launch import (
    ADAPTED_FOLDER,
    DIVERGED_FILE,
    PLACEMENT_FILE,
    STOPPED_FILE,
    TOO_LARGE_FILE,
    Around,
    launch_adapt,
)
from sonar.train.loop import StepReport
from sonar.train.memory import BatchTooLargeError
from sonar.train.stages import Observe, TrainingStopped, never

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


RAY_CPUS = 3  # two workers, and one for what Train runs beside them
RAY_DASHBOARD = True  # without it, Train leaks placement groups


def write_inputs(folder: Path) -> tuple[Checkpoint, Mixture]:
    """A base, also on disk in `base`, and a mixture of stores on disk."""
    base = make_base()
    save_checkpoint(base, folder / "base")
    lengths = (0.5, 0.7, 0.4)
    made = {name: make_store(name, 10, seconds=lengths) for name in ("new", "prior")}
    new, prior = (ClipStore(write_store(folder / f"shards-{name}", store)) for name, store in made.items())
    return base, Mixture(new, np.arange(10), prior, np.arange(10), np.arange(10))


def observer(path: Path) -> Observe:
    """Writes down every step of the model stage that it is shown; one worker of the two is."""

    def observe(report: StepReport, models: Mapping[str, nn.Module]) -> dict[str, float]:
        assert models.keys() >= {"encoder", "tokenizer", "predictor"}
        if report.stage != "model":
            return {}
        with path.open("a") as file:
            file.write(f"{report.stage} {report.step}\n")
        return {"seen": float(report.step)}

    return observe


def test_workers_that_diverge_say_where_and_are_not_restarted(local_ray: None, tmp_path: Path) -> None:
    _, mixture = write_inputs(tmp_path)
    config = make_config(training__num_workers=2, training__tokenizer_steps=0, optim__lr=1e30).adapt_config()
    with pytest.raises(FloatingPointError, match=r"stage model, step 1: .* is not finite on clips"):
        launch_adapt(str(tmp_path / "base"), mixture, config, tmp_path / "trial")
    assert not (tmp_path / "trial" / ADAPTED_FOLDER).exists() and not (tmp_path / "trial" / DIVERGED_FILE).exists()


def refuser() -> Observe:
    """After the first step the encoder of rank 0 finds no memory for more than one clip."""

    def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    def observe(report: StepReport, models: Mapping[str, nn.Module]) -> dict[str, float]:
        models["encoder"].register_forward_pre_hook(refuse)
        return {}

    return observe


def test_a_worker_without_memory_says_what_fits_though_the_others_wait_for_it(local_ray: None, tmp_path: Path) -> None:
    _, mixture = write_inputs(tmp_path)
    config = make_config(training__num_workers=2, training__tokenizer_steps=0).adapt_config()
    with pytest.raises(BatchTooLargeError, match=r"stage model, step 1: .* Set training.accumulation=2, "):
        launch_adapt(str(tmp_path / "base"), mixture, config, tmp_path / "trial", Around(observe=refuser()))
    assert not (tmp_path / "trial" / TOO_LARGE_FILE).exists()


def test_two_workers_finish_and_leave_an_adapted_checkpoint(local_ray: None, tmp_path: Path) -> None:
    base, mixture = write_inputs(tmp_path)
    mixture = mixture._replace(features=FeatureFolder(tmp_path / "features", 10**9))
    config = make_config(
        training__num_workers=2,
        training__accumulation=2,
        training__checkpoint_every=STEPS // 2,
        training__predictor_steps=2,
    ).adapt_config()
    adapted, metrics = launch_adapt(
        str(tmp_path / "base"), mixture, config, tmp_path / "trial", Around(observe=observer(tmp_path / "seen"))
    )
    assert (tmp_path / "seen").read_text() == "".join(f"model {step}\n" for step in range(1, STEPS + 1))
    assert len(list((tmp_path / "features").glob("*/*"))) > 1
    assert metrics["model/seen"] == STEPS == metrics["model/steps"]
    assert metrics["model/loss"] > 0 and metrics["tokenizer/codebook/perplexity"] >= 1
    assert adapted.tokenizer is not None and adapted.predictor is not None
    reloaded = load_checkpoint(tmp_path / "trial" / ADAPTED_FOLDER)
    for found in (adapted, reloaded):
        found_tensors = tensors(found.encoder, found.tokenizer, found.predictor)
        before = tensors(base.encoder, base.tokenizer, base.predictor)
        assert all(bool(value.isfinite().all()) for value in found_tensors.values())
        assert {name.split(".")[0] for name in changed(before, found_tensors)} == {"0", "1", "2"}
    assert torch.allclose(adapted.tokenizer.codebook.vectors.norm(dim=1), torch.ones(16), atol=1e-6)


def test_two_workers_that_are_asked_to_stop_stop_after_the_same_step_and_go_on_from_it(
    local_ray: None, tmp_path: Path
) -> None:
    _, mixture = write_inputs(tmp_path)
    config = make_config(training__num_workers=2, training__tokenizer_steps=0, training__predictor_steps=0)
    seen = tmp_path / "seen"

    def has_seen_three() -> bool:
        return seen.exists() and "model 3" in seen.read_text()

    around = Around(observe=observer(seen), is_stopping=has_seen_three)
    where = (str(tmp_path / "base"), mixture, config.adapt_config(), tmp_path / "trial")
    with pytest.raises(TrainingStopped, match="stopped after step 3 of model"):
        launch_adapt(*where, around)
    assert not (tmp_path / "trial" / STOPPED_FILE).exists()
    _, metrics = launch_adapt(*where, around._replace(is_stopping=never))
    assert seen.read_text() == "".join(f"model {step}\n" for step in range(1, STEPS + 1))  # none twice
    assert metrics["model/steps"] == STEPS
    assert len((tmp_path / "trial" / PLACEMENT_FILE).read_text()) == 36  # for who looks after it
