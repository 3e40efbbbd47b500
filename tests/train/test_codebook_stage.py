"""The codebook over a tokenizer stage: its freeze, its health, its alarm, the churn of labels, and precision."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLIP_SECONDS, NUM_CODES, STEPS, Recorder, make_base, make_config, make_mixture, make_store

from sonar.checkpoint import Checkpoint, save_checkpoint
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig
from sonar.experiment import apply_preset
from sonar.model.codebook import CodebookConfig
from sonar.model.fbank import log_mel
from sonar.model.inputs import num_real_patches
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer
from sonar.search.prepare import _warn_of_few_tokens
from sonar.train import churn
from sonar.train.adapt import Mixture, adapt
from sonar.train.churn import LabelChurn, clip_codes, spread
from sonar.train.loop import StepReport
from sonar.train.objective import CodeAssignment, DistillConfig, Moment
from sonar.train.stages import Worker
from sonar.train.tokenizer_objective import CodebookCollapseError, TokenizerObjective

TOKENIZER_ONLY: dict[str, Any] = {"training__predictor_steps": 0, "training__model_steps": 0}


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return make_mixture()


@pytest.fixture
def tokenizer() -> Tokenizer:
    found = make_base().tokenizer
    assert found is not None
    return found


def objective_of(tokenizer: Tokenizer, **codebook: Any) -> TokenizerObjective:
    config = CodebookConfig(**codebook)
    return TokenizerObjective(tokenizer, make_base().encoder, None, DistillConfig(tokenizer_weight=0.0), config)


def assignment_of(tokenizer: Tokenizer, codes: list[int], is_replay: list[bool] | None = None) -> CodeAssignment:
    indices = torch.tensor(codes)
    flags = torch.tensor(is_replay if is_replay is not None else [False] * len(codes))
    return CodeAssignment(tokenizer.codebook.vectors[indices].clone(), indices, flags)


def step(objective: TokenizerObjective, assignment: CodeAssignment, at: int = 0, of: int = 10) -> dict[str, float]:
    return objective.after_step(assignment, torch.Generator().manual_seed(0), Moment("tokenizer", at, of))


def run(mixture: Mixture, base: Checkpoint | None = None, preset: str = "sonar", **changes: Any) -> list[StepReport]:
    recorder = Recorder()
    config = apply_preset(make_config(**TOKENIZER_ONLY, **changes), preset)
    adapt(base or make_base(), mixture, config.adapt_config(), recorder.hooks(), Worker())
    return recorder.reports


@pytest.mark.parametrize(("fraction", "last"), [(0.0, 10), (0.2, 8), (0.5, 5), (1.0, 0)])
def test_nothing_is_revived_in_the_last_share_of_the_stage(tokenizer: Tokenizer, fraction: float, last: int) -> None:
    objective = objective_of(tokenizer, freeze_fraction=fraction, collapse_fraction=0.0)
    unused = tokenizer.codebook.vectors[2:].clone()
    revived = []
    for at in range(10):
        tokenizer.codebook.usage.fill_(0.0)  # so that every step would revive what it does not use
        tokenizer.codebook.vectors[2:] = unused
        told = step(objective, assignment_of(tokenizer, [0, 1] * 32), at)
        revived.append(told["codebook/revived"] > 0)
        assert torch.equal(tokenizer.codebook.vectors[2:], unused) != revived[-1]
    assert revived == [True] * last + [False] * (10 - last)


def test_vectors_and_usage_go_on_following_the_tokens_while_revival_is_off(tokenizer: Tokenizer) -> None:
    objective = objective_of(tokenizer, freeze_fraction=1.0)
    codebook = tokenizer.codebook
    tokens = torch.nn.functional.normalize(codebook.vectors[:1] + 0.1, dim=1).repeat(8, 1)
    vectors, usage = codebook.vectors.clone(), codebook.usage.clone()
    step(objective, CodeAssignment(tokens, torch.zeros(8, dtype=torch.long), torch.zeros(8, dtype=torch.bool)))
    assert (codebook.vectors[0] @ tokens[0]) > (vectors[0] @ tokens[0])
    assert codebook.usage[0] > usage[0] and torch.equal(codebook.vectors[1:], vectors[1:])


def test_health_tells_new_from_prior_tokens(tokenizer: Tokenizer) -> None:
    codes, is_replay = [0, 0, 0, 0, 5, 6, 7, 8], [False] * 4 + [True] * 4
    told = step(objective_of(tokenizer), assignment_of(tokenizer, codes, is_replay))
    assert told["codebook/perplexity_new"] == pytest.approx(1.0)
    assert told["codebook/perplexity_prior"] == pytest.approx(4.0)
    entropy = math.log(2) / 2 + 4 * math.log(8) / 8  # half of the tokens on one code, the others on four
    assert told["codebook/perplexity"] == pytest.approx(math.exp(entropy))
    assert told["codebook/coverage"] == 5 / NUM_CODES
    alone = step(objective_of(tokenizer), assignment_of(tokenizer, codes))
    assert "codebook/perplexity_prior" not in alone  # and not a number where there was none to take


def test_dead_codes_are_those_whose_usage_is_below_the_threshold(tokenizer: Tokenizer) -> None:
    usage = torch.full((NUM_CODES,), 1.0 / NUM_CODES)
    usage[:4] = 0.09 / NUM_CODES
    tokenizer.codebook.usage.copy_(usage)
    objective = objective_of(tokenizer, dead_threshold=0.1, revival="none", usage_decay=0.999)
    assert step(objective, assignment_of(tokenizer, list(range(4, NUM_CODES))))["codebook/dead_share"] == 0.25


def test_a_collapse_stops_the_run_and_says_where_and_what_to_do(tokenizer: Tokenizer) -> None:
    tokenizer.codebook.set_usage(torch.arange(NUM_CODES))  # prior perplexity 16
    objective = objective_of(tokenizer, revival="none", collapse_fraction=0.2)
    one_code = assignment_of(tokenizer, [3] * 64)
    message = (
        r"stage tokenizer, step \d+: the codebook has collapsed: the perplexity of its use is 3\.\d, less than "
        r"collapse_fraction 0.2 of the 16.0 on the prior corpora. Lower optim.lr, .*codebook.collapse_fraction=0"
    )
    with pytest.raises(CodebookCollapseError, match=message):
        for at in range(100):
            step(objective, one_code, at, 100)
    assert 5 < at < 30  # smoothed: not by one odd batch, but within some steps
    assert issubclass(CodebookCollapseError, FloatingPointError)  # which ends the command line with status 2


def test_a_narrow_domain_or_an_alarm_that_is_off_goes_on(tokenizer: Tokenizer) -> None:
    tokenizer.codebook.set_usage(torch.arange(NUM_CODES))
    for fraction, codes in ((0.2, [1, 2, 3, 4] * 16), (0.0, [3] * 64)):
        objective = objective_of(tokenizer, revival="none", collapse_fraction=fraction)
        for at in range(100):
            step(objective, assignment_of(tokenizer, codes), at, 100)


def test_a_collapse_in_training_ends_the_run(mixture: Mixture) -> None:
    with pytest.raises(CodebookCollapseError, match="stage tokenizer, step"):
        run(mixture, preset="dcpt", codebook__collapse_fraction=1.0)


def test_churn_is_the_share_of_real_tokens_that_changed_their_code(tokenizer: Tokenizer) -> None:
    store = make_store("prior", 7, seconds=(0.5, 0.3, 0.41))
    rows = np.arange(7)
    measured = LabelChurn(tokenizer, store, rows, CLIP_SECONDS)
    student = make_base(seed=1).tokenizer
    assert student is not None
    assert measured(tokenizer) == 0.0
    fbank = student.encoder.config.fbank
    differ = total = 0
    for row in rows:
        wave = torch.zeros(1, int(CLIP_SECONDS * 16_000))  # padded to the next half second
        wave[0, : store.num_samples[row]] = torch.from_numpy(store.waveform(int(row)))
        mel = log_mel(wave, fbank)
        real = num_real_patches((torch.arange(wave.shape[1]) >= store.num_samples[row])[None], fbank)
        padding = torch.arange(24)[None] >= real
        differ += int((student.codes(mel, padding) != tokenizer.codes(mel, padding))[~padding].sum())
        total += int(real)
    assert 0 < differ < total < 7 * 24
    assert measured(student) == pytest.approx(differ / total)


def test_measuring_churn_disturbs_nothing(tokenizer: Tokenizer) -> None:
    store = make_store("prior", 3)
    tokenizer.train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in tokenizer.state_dict().items()}
    LabelChurn(tokenizer, store, np.arange(3), CLIP_SECONDS)(tokenizer)
    assert tokenizer.training and tokenizer.encoder.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in tokenizer.state_dict().items())


def test_churn_is_measured_on_clips_spread_over_the_prior_corpus(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spread(np.arange(100, 200), 5).tolist() == [100, 124, 149, 174, 199]
    assert spread(np.arange(3), 5).tolist() == [0, 1, 2]
    seen: list[int] = []

    def watch(tokenizer: Tokenizer, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> torch.Tensor:
        seen.append(len(rows))
        return clip_codes(tokenizer, store, rows, clip_seconds)

    monkeypatch.setattr(churn, "clip_codes", watch)
    monkeypatch.setattr(churn, "CHURN_CLIPS", 2)
    measured = LabelChurn(tokenizer, make_store("prior", 9), np.arange(9), CLIP_SECONDS)
    measured(tokenizer)
    measured(tokenizer)
    assert seen == [2, 2, 2]  # the old codes once


def test_churn_is_reported_at_intervals_and_at_the_stages_end(mixture: Mixture) -> None:
    reports = run(mixture, training__churn_every=4)
    assert ["label_churn" in report.metrics for report in reports] == [False, False, False, True, False, True]
    assert all(0 <= report.metrics.get("label_churn", 0.0) <= 1 for report in reports)
    assert not any("label_churn" in report.metrics for report in run(mixture, training__churn_every=0))


def test_a_tokenizer_that_did_not_move_has_no_churn(mixture: Mixture) -> None:
    still = {"optim__lr": 1e-30, "optim__final_lr": 0.0, "codebook__revival": "none", "codebook__ema_decay": 1 - 1e-9}
    reports = run(mixture, training__churn_every=STEPS, **still)
    assert reports[-1].metrics["label_churn"] == 0.0


def test_a_predictor_of_another_codebook_is_refused_and_new_heads_are_not(mixture: Mixture) -> None:
    base = make_base()
    shape = PredictorConfig(transformer=base.encoder.config.stack(1), num_codes=2 * NUM_CODES)
    base.predictor = LabelPredictor(shape).initialise(torch.Generator())
    with pytest.raises(ValueError, match="the tokenizer has 16 codes and the label predictor predicts 32"):
        run(mixture, base)
    assert run(mixture, base, training__reset_heads=True, training__head_steps=1)


def test_few_tokens_are_told_with_how_many_are_needed() -> None:
    large = make_config(training__batch_size=32, training__clip_seconds=10.0).adapt_config()
    warning = large.token_shortage(1024)  # 15872 tokens of 16384
    assert warning is not None and "15872 tokens at most" in warning and "usage_decay 0.9 needs 16384" in warning
    advised = float(warning.rpartition(" ")[2])
    assert 0.9 < advised < 0.91
    followed = make_config(
        training__batch_size=32, training__clip_seconds=10.0, codebook__usage_decay=advised
    ).adapt_config()
    assert followed.token_shortage(1024) is None
    assert make_config(training__batch_size=64, training__clip_seconds=10.0).adapt_config().token_shortage(1024) is None


def test_a_sweep_says_once_that_tokens_are_few(tmp_path: Path) -> None:
    """While it prepares, from the configuration of the base alone."""
    save_checkpoint(make_base(), tmp_path / "base")
    save_checkpoint(Checkpoint(encoder=make_base().encoder), tmp_path / "public")
    said: list[str] = []
    for folder, batch_size in (("base", 4), ("base", 64), ("public", 4)):  # 96 and 1536 tokens of the 256 needed
        _warn_of_few_tokens(make_config(training__batch_size=batch_size), tmp_path / folder, said.append)
    assert len(said) == 1 and "a step has 96 tokens at most" in said[0] and "16 codes" in said[0]


@pytest.mark.parametrize("change", [{"codebook__revival": "none"}, {"training__tokenizer_steps": 0}])
def test_few_tokens_matter_only_where_codes_are_revived(change: dict[str, Any]) -> None:
    assert make_config().adapt_config().token_shortage(1024) is not None
    assert make_config(**change).adapt_config().token_shortage(1024) is None


@pytest.mark.parametrize("schedule", ["staged", "interleaved"])
def test_a_bf16_run_ends_with_finite_losses_in_every_stage_and_a_float32_codebook(
    schedule: str, mixture: Mixture
) -> None:
    recorder = Recorder()
    config = make_config(training__precision="bf16", training__reset_heads=True, training__schedule=schedule)
    adapted = adapt(make_base(), mixture, config.adapt_config(), recorder.hooks(), Worker())
    stages = {"heads", "tokenizer", "predictor", "model"} - ({"predictor"} if schedule == "interleaved" else set())
    assert set(recorder.stages()) == stages
    assert all(math.isfinite(value) for report in recorder.reports for value in report.metrics.values())
    assert adapted.tokenizer is not None
    for buffer in adapted.tokenizer.codebook.buffers():
        assert buffer.dtype == torch.float32 and buffer.isfinite().all()


def test_the_tokens_that_reach_the_codebook_are_float32_under_autocast(mixture: Mixture) -> None:
    base = make_base()
    assert base.tokenizer is not None
    objective = objective_of(base.tokenizer)
    config = StreamConfig(batch_size=4, clip_seconds=CLIP_SECONDS, replay_ratio=0.5, seed=0)
    sources = Source(mixture.new, mixture.new_index), Source(mixture.prior, mixture.prior_index)
    batch = MixedStream(*sources, config).batch(0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = objective(batch, torch.Generator())
    assert losses.assignment is not None and losses.assignment.embedding.dtype == torch.float32
    assert losses.total.dtype == torch.float32
    assert torch.equal(losses.assignment.codes, base.tokenizer.codebook.assign(losses.assignment.embedding))
    assert losses.assignment.is_replay.any() and not losses.assignment.is_replay.all()
