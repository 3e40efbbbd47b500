"""One adaptation: resumed bit by bit, blind to what it must not touch, and a baseline by configuration alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import NUM_CODES, RATE, STEPS, Recorder, changed, make_base, make_config, make_mixture, tensors

from sonar.checkpoint import Checkpoint, load_state, save_state
from sonar.experiment import TrialConfig, apply_preset
from sonar.model.fbank import log_mel
from sonar.train import stages
from sonar.train.adapt import Mixture, adapt
from sonar.train.loop import PACE, Stage, StageState
from sonar.train.settings import AdaptConfig, TrainingConfig
from sonar.train.stages import Hooks, Worker

ALL_STAGES = ["heads", "tokenizer", "predictor", "model"]
COLD: dict[str, Any] = {"training__reset_heads": True}


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return make_mixture()


def adapt_tiny(config: TrialConfig, mixture: Mixture, hooks: Hooks, base: Checkpoint | None = None) -> Checkpoint:
    return adapt(base or make_base(), mixture, config.adapt_config(), hooks, Worker())


def all_tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return tensors(checkpoint.encoder, checkpoint.tokenizer, checkpoint.predictor)


class Run:
    """A whole run and every state that it saved, as files."""

    def __init__(self, folder: Path, mixture: Mixture) -> None:
        self.config = make_config(training__checkpoint_every=STEPS // 2, **COLD)
        self.paths: list[Path] = []
        self.base = make_base(dropout=0.1)  # so that the generator of dropout must be restored too

        def save(state: dict[str, Any]) -> None:
            self.paths.append(folder / f"{len(self.paths)}.pt")
            save_state(state, self.paths[-1])

        torch.manual_seed(1)
        recorder = Recorder()
        self.result = all_tensors(adapt_tiny(self.config, mixture, recorder.hooks(save=save, save_every=3), self.base))
        self.stages = recorder.stages()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, mixture: Mixture) -> Run:
    run = Run(tmp_path_factory.mktemp("states"), mixture)
    assert run.stages == ALL_STAGES and len(run.paths) == 8
    return run


@pytest.mark.parametrize(("number", "at"), [(2 * i + j, f"{name}-{3 + 3 * j}") for i, name in enumerate(ALL_STAGES)
                                            for j in range(2)])  # fmt: skip
def test_a_run_resumed_anywhere_equals_one_that_never_stopped(
    number: int, at: str, whole: Run, mixture: Mixture
) -> None:
    state = load_state(whole.paths[number])
    done = 3 * (number + 1)
    assert [state["stages"][name]["step"] for name in ALL_STAGES] == [min(6, max(0, done - 6 * i)) for i in range(4)]
    torch.manual_seed(1000 + number)
    recorder = Recorder()
    resumed = adapt_tiny(whole.config, mixture, recorder.hooks(state=state), whole.base)
    assert changed(whole.result, all_tensors(resumed)) == []
    assert len(recorder.reports) == 4 * STEPS - 3 * (number + 1)
    assert any(name.endswith("codebook.usage") for name in whole.result)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(mixture: Mixture) -> None:
    """With dropout, which draws from the global generator, and whatever that one's state is."""
    short = COLD | {f"training__{name}_steps": 2 for name in ("head", "tokenizer", "predictor", "model")}
    runs = []
    for before, seed in enumerate((0, 0, 1)):
        torch.manual_seed(before)
        config = make_config(training__seed=seed, **short)
        runs.append(all_tensors(adapt_tiny(config, mixture, Recorder().hooks(), make_base(dropout=0.1))))
    assert changed(runs[0], runs[1]) == []
    assert len(changed(runs[0], runs[2])) > len(runs[0]) / 2


def test_training_leaves_the_global_generator_as_it_was(mixture: Mixture) -> None:
    base, before = make_base(dropout=0.1), torch.get_rng_state()
    adapt_tiny(make_config(training__model_steps=1), mixture, Recorder().hooks(), base)
    assert torch.equal(torch.get_rng_state(), before)


def test_adaptation_leaves_the_base_as_it_was(mixture: Mixture) -> None:
    base = make_base()
    before = all_tensors(base)
    adapted = adapt_tiny(make_config(**COLD), mixture, Recorder().hooks(), base)
    assert changed(before, all_tensors(base)) == []
    assert all(p.requires_grad for p in base.encoder.parameters())
    moved = changed(before, all_tensors(adapted))
    assert {name.split(".")[0] for name in moved} == {"0", "1", "2"}


def test_the_base_preset_changes_nothing(mixture: Mixture) -> None:
    base, recorder = make_base(), Recorder()
    adapted = adapt_tiny(apply_preset(make_config(), "base"), mixture, recorder.hooks(), base)
    assert changed(all_tensors(base), all_tensors(adapted)) == []
    assert recorder.reports == []


class Watched(Recorder):
    """Also keeps the origin of every clip, by stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.corpora: dict[str, set[str]] = {}
        run_stage = stages.run_stage

        def watch(stage: Stage, *arguments: Any, **named: Any) -> StageState:
            ids = [name for step in range(stage.num_steps) for name in stage.stream.batch(step).clip_ids]
            self.corpora[stage.name] = {name.split("/")[0] for name in ids}
            return run_stage(stage, *arguments, **named)

        monkeypatch.setattr(stages, "run_stage", watch)

    def terms(self, stage: str) -> set[str]:
        names = {name for report in self.reports if report.stage == stage for name in report.metrics}
        return names - {"loss", "grad_norm", "lr", "masked_accuracy", *PACE}


HEALTH = {f"codebook/{name}" for name in ("revived", "perplexity", "perplexity_new", "coverage", "dead_share")}
HEALTH |= {"label_churn"}
PRIOR_HEALTH = {"codebook/perplexity_prior"}


def test_sonar_has_every_term_and_rehearses_in_every_stage(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    adapt_tiny(make_config(**COLD), mixture, watched.hooks())
    assert watched.corpora == {"heads": {"prior"}} | {name: {"new", "prior"} for name in ALL_STAGES[1:]}
    assert watched.terms("heads") == {"masked_prediction", "alignment"}
    losses = {"alignment", "commitment", "tokenizer_drift", "contrastive"}
    assert watched.terms("tokenizer") == losses | HEALTH | PRIOR_HEALTH
    assert watched.terms("predictor") == {"masked_prediction"}
    assert watched.terms("model") == {"masked_prediction", "feature_drift"}


def test_dcpt_has_no_teacher_no_replay_and_no_revival(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    adapt_tiny(apply_preset(make_config(), "dcpt"), mixture._replace(prior_index=np.arange(0)), watched.hooks())
    assert watched.corpora == {name: {"new"} for name in ALL_STAGES[1:]}  # the base has warm heads
    assert watched.terms("tokenizer") == {"alignment", "commitment"} | HEALTH
    assert watched.terms("model") == {"masked_prediction"}
    revived = [report.metrics.get("codebook/revived", 0.0) for report in watched.reports]
    assert revived == [0.0] * len(revived)


def test_cold_dcpt_has_new_heads_and_warms_none_of_them(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, base = Watched(monkeypatch), make_base()
    config = apply_preset(make_config(training__tokenizer_steps=0, training__model_steps=0), "dcpt-cold")
    adapted = adapt_tiny(config, mixture._replace(prior_index=np.arange(0)), watched.hooks(), base)
    assert watched.reports == []
    moved = changed(all_tensors(base), all_tensors(adapted))
    assert moved and all(name.startswith(("1.estimator.", "2.")) for name in moved)


def test_heads_are_warmed_only_where_there_are_none(mixture: Mixture) -> None:
    public, warm = Recorder(), Recorder()
    base = make_base()
    base.predictor = None
    adapt_tiny(make_config(), mixture, public.hooks(), base)
    adapt_tiny(make_config(), mixture, warm.hooks())
    assert public.stages() == ALL_STAGES
    assert warm.stages() == ALL_STAGES[1:]


def test_usage_starts_at_the_histogram_of_the_prior_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, base = make_mixture(), make_base()
    tokenizer = base.tokenizer
    assert tokenizer is not None
    counts = np.zeros(NUM_CODES)
    mixture.prior.waveforms = [wave[: RATE // 2 - 1600] for wave in mixture.prior.waveforms]  # one length: no padding
    mixture.prior.num_samples = np.full(len(mixture.prior.clips), RATE // 2 - 1600)
    for wave in mixture.prior.waveforms:
        codes = tokenizer.codes(log_mel(torch.from_numpy(wave)[None], base.encoder.config.fbank))
        counts += np.bincount(codes.flatten().numpy(), minlength=NUM_CODES)
    found: dict[str, torch.Tensor] = {}

    def stop_there(stage: Stage, *arguments: Any, **named: Any) -> StageState:
        if stage.name == "tokenizer":
            found["usage"] = stage.objective.student.codebook.usage.clone()
        return StageState(stage.num_steps, ended=True)

    monkeypatch.setattr(stages, "run_stage", stop_there)
    adapt_tiny(make_config(training__clip_seconds=0.4), mixture, Recorder().hooks(), base)
    assert 1 < (counts > 0).sum()
    assert found["usage"].numpy() == pytest.approx(counts / counts.sum(), abs=1e-6)


def test_epochs_count_passes_over_the_new_clips(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, int] = {}

    def count(stage: Stage, *arguments: Any, **named: Any) -> StageState:
        steps[stage.name] = stage.num_steps
        return StageState(stage.num_steps, ended=True)

    monkeypatch.setattr(stages, "run_stage", count)
    config = make_config(training__tokenizer_steps=None, training__epochs=2.5, training__model_steps=7)
    adapt_tiny(config, mixture, Recorder().hooks())
    # 10 new clips, 2 of them in each batch of 4: 5 steps an epoch, 12.5 in all.
    assert steps == {"tokenizer": 13, "predictor": STEPS, "model": 7}


def test_a_base_without_tokenizer_is_refused(mixture: Mixture) -> None:
    base = make_base()
    base.tokenizer = None
    with pytest.raises(ValueError, match="this base has no tokenizer; name the tokenizer of the same BEATs iteration"):
        adapt_tiny(make_config(), mixture, Recorder().hooks(), base)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be >= 1"),
        ({"batch_size": 6, "num_workers": 4}, "batch_size 6 does not divide by num_workers 4 x accumulation 1"),
        ({"model_steps": -1}, "model_steps is -1; it must be >= 0"),
        ({"feature_cache_gb": -0.5}, "feature_cache_gb is -0.5; it must be >= 0"),
    ],
)
def test_sizes_that_cannot_train_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**values)


def test_the_configuration_of_training_is_a_part_of_the_trials() -> None:
    config = make_config(sampling__replay_ratio=0.25)
    assert config.adapt_config() == AdaptConfig(
        distill=config.distill,
        codebook=config.codebook,
        optim=config.optim,
        training=config.training,
        replay_ratio=0.25,
    )
