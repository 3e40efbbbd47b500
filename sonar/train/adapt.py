"""One adaptation: head warm-up, tokenizer, predictor re-warm, model. The configuration alone makes it SONAR or DCPT."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn

from sonar.checkpoint import Checkpoint
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig
from sonar.model.interpolation import interpolated
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer
from sonar.train.churn import HISTOGRAM_CLIPS, BaseCodes, LabelChurn, clip_codes, spread
from sonar.train.kept import FeatureStore
from sonar.train.loop import Stage
from sonar.train.model_objective import HeadObjective, ModelObjective
from sonar.train.objective import freeze
from sonar.train.plateau import Plateau
from sonar.train.regulariser import Regulariser
from sonar.train.settings import AdaptConfig
from sonar.train.stages import Hooks, Leg, Plan, Worker, alternating_legs, one_leg_each, run_plan
from sonar.train.tokenizer_objective import TokenizerObjective


class Mixture(NamedTuple):
    """The audio of one adaptation: stores, and rows of them.

    Attributes:
        new: store of the new domain.
        new_index: (N,) rows drawn for training.
        prior: store of the prior corpora.
        prior_index: (M,) rows drawn as replay.
        pool_index: (P,) all prior training rows: the head warm-up and the starting usage are uniform over them.
        base_codes: what the base's tokenizer says of some of the pool; None: the run counts by itself.
        features: where what the base says of whole clips is kept, for this run and others; None: nowhere.
    """

    new: ClipStore
    new_index: np.ndarray
    prior: ClipStore
    prior_index: np.ndarray
    pool_index: np.ndarray
    base_codes: BaseCodes | None = None
    features: FeatureStore | None = None


def adapt(base: Checkpoint, mixture: Mixture, config: AdaptConfig, hooks: Hooks, worker: Worker) -> Checkpoint:
    """One SONAR run, or a baseline.

    Args:
        base: encoder and tokenizer to adapt; not changed.
        mixture: the audio.
        config: weights, codebook rule, optimiser, steps.
        hooks: report, save, and the state to resume from.
        worker: rank, number of workers and device of this process.

    Returns:
        The adapted encoder, tokenizer and heads, on the worker's device.

    Raises:
        ValueError: the base has no tokenizer, its label predictor belongs to another one, or it lacks a layer that is
            to be distilled.
        NonFiniteLossError: a loss became NaN or infinite.
        CodebookCollapseError: the tokenizer came to use few codes.
        BatchTooLargeError: a step found no memory.
    """
    adaptation = _Adaptation(base, mixture, config, worker)
    run_plan(adaptation.plan(), hooks)
    old, trained = adaptation.old_encoder.state_dict(), adaptation.encoder.state_dict()
    adaptation.encoder.load_state_dict(interpolated(old, trained, config.training.interpolation))
    return Checkpoint(
        encoder=adaptation.encoder,
        tokenizer=adaptation.tokenizer,
        predictor=adaptation.predictor,
        provenance=base.provenance,
    )


class _Adaptation:
    """The modules of one adaptation and the stages over them."""

    def __init__(self, base: Checkpoint, mixture: Mixture, config: AdaptConfig, worker: Worker) -> None:
        if base.tokenizer is None:
            raise ValueError("this base has no tokenizer; name the tokenizer of the same BEATs iteration (--tokenizer)")
        self.mixture, self.config, self.worker = mixture, config, worker
        self.old_encoder = freeze(copy.deepcopy(base.encoder).to(worker.device))
        self.old_tokenizer = freeze(copy.deepcopy(base.tokenizer).to(worker.device))
        self.encoder = copy.deepcopy(base.encoder).to(worker.device)
        self.tokenizer = copy.deepcopy(base.tokenizer).to(worker.device)
        self.predictor, self.has_cold_heads = self._heads(base)
        generator = torch.Generator().manual_seed(config.training.seed)
        self.regulariser = Regulariser(self.old_encoder, config.distill).initialise(generator).to(worker.device)

    def _heads(self, base: Checkpoint) -> tuple[LabelPredictor, bool]:
        """The label predictor, and whether it or the estimator is new (the estimator is then replaced too)."""
        predictor = base.predictor
        if predictor is not None and self.tokenizer.estimator is not None and not self.config.training.reset_heads:
            _check_codes(self.tokenizer, predictor)
            return copy.deepcopy(predictor).to(self.worker.device), False
        generator = torch.Generator().manual_seed(self.config.training.seed)
        self.tokenizer.new_estimator(generator)
        self.tokenizer.to(self.worker.device)
        stack = self.encoder.config.stack(self.tokenizer.config.estimator_layers)
        shape = PredictorConfig(transformer=stack, num_codes=self.tokenizer.config.num_codes)
        return LabelPredictor(shape).initialise(generator).to(self.worker.device), True

    def plan(self) -> Plan:
        models = {
            "encoder": self.encoder,
            "tokenizer": self.tokenizer,
            "predictor": self.predictor,
            "distillation_heads": self.regulariser.heads,
        }
        stages: dict[str, Callable[[], Stage | None]] = {
            "heads": self.heads_stage,
            "tokenizer": self.tokenizer_stage,
            "predictor": self.predictor_stage,
            "model": self.model_stage,
        }
        if self.config.training.schedule == "staged":
            return Plan(models=models, stages=stages, legs=one_leg_each(stages))
        turns = {name: self.num_steps(f"{name}_steps") for name in ("tokenizer", "model")}
        legs = (Leg("heads"), *alternating_legs(turns, self.config.training.interleave_steps))
        return Plan(models=models, stages=stages, legs=legs)

    def heads_stage(self) -> Stage | None:
        if not self.has_cold_heads:
            return None
        objective = HeadObjective(self.tokenizer, self.encoder, self.predictor, self.config.distill)
        trained = (cast(nn.Module, self.tokenizer.estimator), self.predictor)
        training = self.config.training
        stage = self._stage("heads", objective, trained, training.head_steps)
        if not training.plateau_window:
            return stage
        plateau = Plateau("masked_accuracy", training.plateau_window, training.plateau_gain)
        # A stage that may end at any step has no step to decay to: its rate stays as it is after the warm-up.
        return replace(stage, plateau=plateau, optim=replace(stage.optim, final_lr=stage.optim.lr))

    def tokenizer_stage(self) -> Stage:
        objective, churn = self.tokenizer_objective, self.churn
        return replace(
            self._stage("tokenizer", objective, (self.tokenizer,), self.num_steps("tokenizer_steps")),
            prepare=self._start_usage,
            measure=lambda: {"label_churn": churn(self.tokenizer)},
            measure_every=self.config.training.churn_every,
        )

    @cached_property
    def tokenizer_objective(self) -> TokenizerObjective:
        """For all legs of the stage: what it keeps is of models that never change."""
        old = self.old_encoder, self.old_tokenizer
        distill, codebook = self.config.distill, self.config.codebook
        return TokenizerObjective(self.tokenizer, *old, distill, codebook, self.mixture.features)

    @cached_property
    def churn(self) -> LabelChurn:
        known, seconds = self.mixture.base_codes, self.config.training.clip_seconds
        expected = known.churn.to(self.worker.device) if known else None
        return LabelChurn(self.old_tokenizer, self.mixture.prior, self.mixture.pool_index, seconds, expected)

    def predictor_stage(self) -> Stage | None:
        if self.num_steps("tokenizer_steps") == 0:
            return None
        objective = ModelObjective(self.encoder, self.predictor, self.tokenizer, None, self.config.distill)
        return self._stage("predictor", objective, (self.predictor,), self.config.training.predictor_steps)

    def model_stage(self) -> Stage:
        objective = ModelObjective(self.encoder, self.predictor, self.tokenizer, self.regulariser, self.config.distill)
        trained = (self.encoder, self.predictor, self.regulariser.heads)
        return self._stage("model", objective, trained, self.num_steps("model_steps"))

    def num_steps(self, key: str) -> int:
        """Steps of a stage: as configured, or from the epochs."""
        steps = getattr(self.config.training, key)
        return steps if steps is not None else math.ceil(self.config.training.epochs * self._mixed().steps_per_epoch)

    def _stage(self, name: str, objective: nn.Module, trained: tuple[nn.Module, ...], steps: int) -> Stage:
        optim = self.config.optim
        rates = {"heads": optim.head_lr, "tokenizer": optim.tokenizer_lr, "predictor": optim.head_lr, "model": None}
        return Stage(
            name=name,
            objective=objective,
            trained=trained,
            stream=self._rehearsal() if name == "heads" else self._mixed(),
            num_steps=steps,
            optim=optim.at_rate(rates[name]),
            seed=self.config.training.seed,
            rank=self.worker.rank,
            precision=self.config.training.precision,
            accumulation=self.config.training.accumulation,
            checkpoint_activations=self.config.training.checkpoint_activations,
            compile_layers=self.config.training.compile_layers,
            advise=self.config.training.for_memory,
        )

    def _mixed(self) -> MixedStream:
        return self._stream(self.mixture.new_index, self.mixture.prior_index, self.config.replay_ratio)

    def _rehearsal(self) -> MixedStream:
        return self._stream(self.mixture.new_index[:0], self.mixture.pool_index, 1.0)

    def _stream(self, new_index: np.ndarray, prior_index: np.ndarray, replay_ratio: float) -> MixedStream:
        training = self.config.training
        stream = StreamConfig(
            batch_size=training.batch_size // self.worker.world_size,
            clip_seconds=training.clip_seconds,
            replay_ratio=replay_ratio,
            seed=training.seed,
        )
        mixture, (rank, world_size, _) = self.mixture, self.worker
        new, prior = Source(mixture.new, new_index), Source(mixture.prior, prior_index)
        return MixedStream(new, prior, stream, rank=rank, world_size=world_size)

    def _start_usage(self) -> None:
        """Usage starts at the prior histogram, not at 0, so that step 1 overwrites no healthy code (inferred)."""
        if known := self.mixture.base_codes:
            codes = known.usage.to(self.worker.device)
        else:
            rows = spread(self.mixture.pool_index, HISTOGRAM_CLIPS)
            codes = clip_codes(self.tokenizer, self.mixture.prior, rows, self.config.training.clip_seconds)
        self.tokenizer.codebook.set_usage(codes)


def _check_codes(tokenizer: Tokenizer, predictor: LabelPredictor) -> None:
    """Refuse a predictor of another codebook, as a tokenizer file of another base would bring one."""
    if tokenizer.codebook.num_codes != predictor.config.num_codes:
        raise ValueError(
            f"the tokenizer has {tokenizer.codebook.num_codes} codes and the label predictor predicts "
            f"{predictor.config.num_codes}: they are of different bases. Give the tokenizer that belongs to this base, "
            "or start from new heads with training.reset_heads=true"
        )
