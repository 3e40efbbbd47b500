"""Micro-batches and ranks make the step that one large batch makes, also where clips end early."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CLIP_SECONDS, make_base, make_store, tensors
from torch import distributed, multiprocessing, nn

from sonar.checkpoint import Checkpoint
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream, Source, StreamConfig
from sonar.model.codebook import CodebookConfig
from sonar.train.accumulation import merge_losses, shared_loss, split_batch, term_shares
from sonar.train.loop import PACE, NonFiniteLossError, Stage, StepReport, run_stage
from sonar.train.model_objective import HeadObjective, ModelObjective
from sonar.train.objective import CodeAssignment, DistillConfig, LossTerms
from sonar.train.optim import OptimConfig
from sonar.train.regulariser import Regulariser
from sonar.train.tokenizer_objective import TokenizerObjective

CONFIG = DistillConfig(tokenizer_weight=100.0)
# Adam divides a gradient by its own size: with the usual eps, a gradient of nothing but rounding moves a weight by lr.
OPTIM = OptimConfig(lr=1e-2, warmup_fraction=0.0, eps=1e-3)
CPU = torch.device("cpu")
STEPS = 3


def stream(rank: int = 0, world_size: int = 1) -> MixedStream:
    """Eight clips a step of all ranks, most of them padded, each to another length."""
    new, prior = (make_store(name, 8, seconds=(0.5, 0.2, 0.41, 0.3, 0.18)) for name in ("new", "prior"))
    config = StreamConfig(batch_size=8 // world_size, clip_seconds=CLIP_SECONDS, replay_ratio=0.5, seed=0)
    rows = np.arange(8)
    return MixedStream(Source(new, rows), Source(prior, rows), config, rank=rank, world_size=world_size)


def another_base() -> Checkpoint:
    """Teachers that differ from the students, so that no drift is nothing."""
    return make_base(seed=1)


def tokenizer_objective(base: Checkpoint) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    old = another_base()
    assert base.tokenizer is not None
    base.tokenizer.codebook.set_usage(torch.arange(8))  # half of the codes are dead: some are revived
    codebook = CodebookConfig(max_revive_fraction=0.25)
    return TokenizerObjective(base.tokenizer, old.encoder, old.tokenizer, CONFIG, codebook), (base.tokenizer,)


def model_objective(base: Checkpoint, config: DistillConfig = CONFIG) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    assert base.tokenizer is not None and base.predictor is not None
    regulariser = Regulariser(another_base().encoder, config)
    objective = ModelObjective(base.encoder, base.predictor, base.tokenizer, regulariser, config)
    return objective, (base.encoder, base.predictor)


def held_otherwise(base: Checkpoint) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """Micro-batches of new clips alone have no drift of prior features."""
    return model_objective(base, replace(CONFIG, model_on="prior", model_pass="full", l2sp_weight=1.0))


def head_objective(base: Checkpoint) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    assert base.tokenizer is not None and base.tokenizer.estimator is not None and base.predictor is not None
    objective = HeadObjective(base.tokenizer, base.encoder, base.predictor, CONFIG)
    return objective, (base.tokenizer.estimator, base.predictor)


Build = Callable[[Checkpoint], tuple[nn.Module, tuple[nn.Module, ...]]]
OBJECTIVES: list[Build] = [tokenizer_objective, model_objective, held_otherwise, head_objective]


def train(build: Build, **fields: Any) -> tuple[dict[str, torch.Tensor], list[StepReport]]:
    """Tensors and reports after a few steps."""
    base, reports = make_base(), list[StepReport]()
    objective, trained = build(base)
    plain = {"name": "t", "objective": objective, "trained": trained, "stream": stream(), "num_steps": STEPS,
             "optim": OPTIM, "seed": 0}  # fmt: skip
    run_stage(Stage(**plain | fields), lambda report, state: reports.append(report))
    return tensors(base.encoder, base.tokenizer, base.predictor), reports


def assert_same_run(found: Any, expected: Any) -> None:
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name], value, atol=2e-6, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        for name in one.metrics.keys() - set(PACE):
            assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("accumulation", [2, 4])
@pytest.mark.parametrize("build", OBJECTIVES)
def test_micro_batches_make_the_step_of_the_large_batch(build: Build, accumulation: int) -> None:
    objective, _ = build(make_base())
    counts = [objective.counts(part) for part in split_batch(stream().batch(0), accumulation)]
    assert len({tuple(count.values()) for count in counts}) > 1  # a mean of their means would be another one
    before = tensors(*(getattr(make_base(), name) for name in ("encoder", "tokenizer", "predictor")))
    whole = train(build)
    assert sum(not torch.equal(before[name], whole[0][name]) for name in before) > 10
    assert_same_run(train(build, accumulation=accumulation), whole)


@pytest.mark.parametrize("build", OBJECTIVES)
def test_counts_are_what_the_terms_are_means_over(build: Build) -> None:
    """The definition: a mean over two halves is the mean of their means, weighted by their counts."""
    objective, _ = build(make_base())
    objective.eval()
    generator = torch.Generator()
    batch = stream().batch(0)
    halves = split_batch(batch, 2)
    whole = objective(batch, generator.manual_seed(0))
    parts = [objective(half, draws) for half, draws in zip(halves, [generator.manual_seed(0)] * 2, strict=True)]
    counts = [objective.counts(half) for half in halves]
    assert whole.terms.keys() <= counts[0].keys()
    for name, value in whole.terms.items():
        mean = sum(c[name] * float(p.terms[name]) for c, p in zip(counts, parts, strict=True))
        assert mean / sum(c[name] for c in counts) == pytest.approx(float(value), rel=1e-5), name


def test_splitting_keeps_every_clip_in_its_place() -> None:
    batch = stream().batch(0)
    for parts in (1, 2, 3, 8):
        split = split_batch(batch, parts)
        assert len(split) == parts and max(len(p.clip_ids) for p in split) - min(len(p.clip_ids) for p in split) <= 1
        assert tuple(name for part in split for name in part.clip_ids) == batch.clip_ids
        assert tuple(key for part in split for key in part.keys) == batch.keys != ()
        for field in ("waveform", "padding", "is_replay"):
            assert torch.equal(torch.cat([getattr(part, field) for part in split]), getattr(batch, field))


def test_a_term_without_a_token_in_one_micro_batch_is_left_out_there() -> None:
    shares = term_shares([{"all": 4, "replay": 0}, {"all": 4, "replay": 2}], CPU)
    assert shares == [{"all": 0.5, "replay": 0.0}, {"all": 0.5, "replay": 1.0}]
    weight = torch.ones((), requires_grad=True)
    nothing = weight * torch.tensor(float("nan"))
    first = LossTerms({"all": 2 * weight, "replay": nothing}, {"all": torch.tensor(2.0), "replay": nothing.detach()})
    second = LossTerms({"all": 4 * weight, "replay": weight}, {"all": torch.tensor(4.0), "replay": torch.tensor(1.0)})
    assert merge_losses([first, second], shares).terms == {"all": 3.0, "replay": 1.0, "loss": 4.0}
    (gradient,) = torch.autograd.grad(shared_loss(first, shares[0]) + shared_loss(second, shares[1]), weight)
    assert gradient == 4.0


def test_a_term_that_nobody_counts_is_refused() -> None:
    losses = LossTerms({"new_term": torch.ones(())}, {})
    with pytest.raises(AssertionError, match="`counts` lack new_term"):
        shared_loss(losses, {"other": 1.0})


def test_the_codebook_learns_from_the_tokens_of_all_micro_batches() -> None:
    def tokens(count: int, is_replay: bool) -> LossTerms:
        flags = torch.full((count,), is_replay)
        return LossTerms({"x": torch.ones(())}, {}, CodeAssignment(torch.rand(count, 2), torch.arange(count), flags))

    losses = [tokens(3, False), tokens(2, True)]
    merged = merge_losses(losses, [{"x": 0.6}, {"x": 0.4}]).assignment
    assert merged is not None and merged.codes.tolist() == [0, 1, 2, 0, 1]
    assert merged.is_replay.tolist() == [False] * 3 + [True] * 2 and merged.embedding.shape == (5, 2)


class Poisoned:
    """Audio that is not a number, on one rank only."""

    def __init__(self, inner: MixedStream, is_poisoned: bool) -> None:
        self.inner, self.is_poisoned = inner, is_poisoned

    def batch(self, step: int) -> Batch:
        batch = self.inner.batch(step)
        return batch._replace(waveform=batch.waveform * float("nan")) if self.is_poisoned else batch


def train_rank(rank: int, folder: str, accumulation: int) -> None:
    """One of two ranks that each take half of every batch."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    weights, reports = train(tokenizer_objective, stream=stream(rank, 2), rank=rank, accumulation=accumulation)
    with pytest.raises(NonFiniteLossError, match=r"alignment, .* is not finite"):  # on both, so that none waits
        train(tokenizer_objective, stream=Poisoned(stream(rank, 2), rank == 1), rank=rank)
    torch.save((weights, [tuple(report) for report in reports]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_ranks_make_the_step_of_one_rank_on_the_global_batch(tmp_path: Path, accumulation: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(train_rank, (str(tmp_path), accumulation), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    first, second = ((weights, [StepReport(*report) for report in reports]) for weights, reports in ranks)
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    for one, other in zip(first[1], second[1], strict=True):
        assert all(one.metrics[name] == other.metrics[name] for name in one.metrics.keys() - set(PACE))
    objective, _ = tokenizer_objective(make_base())
    lengths = [objective.counts(stream(rank, 2).batch(0))["alignment"] for rank in range(2)]
    assert lengths[0] != lengths[1] and sum(report.metrics["codebook/revived"] for report in first[1]) > 0
    assert_same_run(first, train(tokenizer_objective))
