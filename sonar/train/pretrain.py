"""A small BEATs base from scratch on one's own audio, so that an adaptation needs no download.

Iteration 1 predicts codes of a random-projection tokenizer; a self-distilled tokenizer is then trained on that
encoder, and iteration 2 predicts its codes (BEATs, arXiv:2212.09058). Two shortcuts make it take minutes, both
inferred: the tokenizer's encoder and iteration 2 start from iteration 1 instead of at random.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from sonar.checkpoint import Checkpoint
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.inputs import model_inputs
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import (
    RandomProjectionConfig,
    RandomProjectionTokenizer,
    Tokenizer,
    TokenizerConfig,
)
from sonar.train.loop import Stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.stages import Hooks, Plan, Worker, one_leg_each, run_plan
from sonar.train.tokenizer_objective import TokenizerObjective


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A base that two CPU cores build in about ten minutes.

    Attributes:
        num_layers, width, ffn_width, num_heads, patch_width: of the encoder (BEATs-base: 12, 768, 3072, 12, 512).
        position_kernel: patches that the position convolution spans (BEATs: 128; a 2 s clip has 96 patches).
        num_codes, code_width: of the tokenizer's codebook (BEATs: 1024, 256).
        head_layers: transformer layers of the predictor and of the estimator (BEATs: 3).
        projection_steps: steps of iteration 1.
        tokenizer_steps: steps of the self-distilled tokenizer.
        model_steps: steps of iteration 2.
        batch_size: clips per step.
        clip_seconds: length of a crop in seconds.
        lr: peak learning rate (BEATs: 5e-4; a small model bears more).
        seed: of every draw.
    """

    num_layers: int = 4
    width: int = 128
    ffn_width: int = 512
    num_heads: int = 4
    patch_width: int = 128
    position_kernel: int = 32
    num_codes: int = 256
    code_width: int = 64
    head_layers: int = 1
    projection_steps: int = 400
    tokenizer_steps: int = 200
    model_steps: int = 2000
    batch_size: int = 32
    clip_seconds: float = 2.0
    lr: float = 1e-3
    seed: int = 0

    def encoder_config(self) -> EncoderConfig:
        """The encoder's architecture, without dropout, as the public checkpoints have it."""
        return EncoderConfig(
            num_layers=self.num_layers,
            width=self.width,
            ffn_width=self.ffn_width,
            num_heads=self.num_heads,
            patch_width=self.patch_width,
            position_kernel=self.position_kernel,
            dropout=0.0,
            attention_dropout=0.0,
        )

    def for_memory(self, num_parts: int | None) -> str:
        """What to set where a step found no memory; `num_parts` as in `TrainingConfig.for_memory`."""
        if num_parts is None:
            return "Shorten base.pretrain.clip_seconds, or build the base on a machine with more memory"
        return f"Set base.pretrain.batch_size={self.batch_size // num_parts}"


def pretrain(store: ClipStore, index: np.ndarray, config: PretrainConfig, hooks: Hooks, worker: Worker) -> Checkpoint:
    """Train a base on rows `index` of `store`.

    Returns:
        Encoder, self-distilled tokenizer with its estimator, and label predictor.
    """
    pretraining = _Pretraining(store, index, config, worker)
    run_plan(pretraining.plan(), hooks)
    return Checkpoint(
        encoder=pretraining.encoder,
        tokenizer=pretraining.tokenizer,
        predictor=pretraining.predictor,
        provenance={},
    )


class _Pretraining:
    """The modules of one pre-training and its stages."""

    def __init__(self, store: ClipStore, index: np.ndarray, config: PretrainConfig, worker: Worker) -> None:
        self.store, self.index, self.config, self.worker = store, index, config, worker
        generator = torch.Generator().manual_seed(config.seed)
        shape = config.encoder_config()
        self.encoder = BeatsEncoder(shape).initialise(generator)
        self.projection = RandomProjectionTokenizer(RandomProjectionConfig(num_codes=config.num_codes), generator)
        self.projection_predictor = self._predictor(generator)
        self.tokenizer = Tokenizer(
            TokenizerConfig(
                encoder=shape,
                num_codes=config.num_codes,
                code_width=config.code_width,
                estimator_layers=config.head_layers,
            )
        ).initialise(generator)
        self.predictor = self._predictor(generator)
        for module in self.models().values():
            module.to(worker.device)

    def _predictor(self, generator: torch.Generator) -> LabelPredictor:
        stack = self.config.encoder_config().stack(self.config.head_layers)
        return LabelPredictor(PredictorConfig(transformer=stack, num_codes=self.config.num_codes)).initialise(generator)

    def models(self) -> dict[str, nn.Module]:
        return {
            "encoder": self.encoder,
            "projection": self.projection,
            "projection_predictor": self.projection_predictor,
            "tokenizer": self.tokenizer,
            "predictor": self.predictor,
        }

    def plan(self) -> Plan:
        stages: dict[str, Callable[[], Stage | None]] = {
            "projection": self.projection_stage,
            "tokenizer": self.tokenizer_stage,
            "model": self.model_stage,
        }
        return Plan(models=self.models(), stages=stages, legs=one_leg_each(stages))

    def projection_stage(self) -> Stage:
        objective = ModelObjective(self.encoder, self.projection_predictor, self.projection, None, DistillConfig())
        trained = (self.encoder, self.projection_predictor)
        return self._stage("projection", objective, trained, self.config.projection_steps)

    def tokenizer_stage(self) -> Stage:
        distill = DistillConfig(tokenizer_weight=0.0, contrastive_weight=0.0)
        teacher = copy.deepcopy(self.encoder)
        objective = TokenizerObjective(
            self.tokenizer, teacher, None, distill, CodebookConfig(revival="none", collapse_fraction=0.0)
        )
        stage = self._stage("tokenizer", objective, (self.tokenizer,), self.config.tokenizer_steps)
        return replace(stage, prepare=self._start_tokenizer)

    def model_stage(self) -> Stage:
        objective = ModelObjective(self.encoder, self.predictor, self.tokenizer, None, DistillConfig())
        return self._stage("model", objective, (self.encoder, self.predictor), self.config.model_steps)

    def _stage(self, name: str, objective: nn.Module, trained: tuple[nn.Module, ...], steps: int) -> Stage:
        return Stage(
            name=name,
            objective=objective,
            trained=trained,
            stream=self._stream(),
            num_steps=steps,
            optim=OptimConfig(lr=self.config.lr),
            seed=self.config.seed,
            rank=self.worker.rank,
            advise=self.config.for_memory,
        )

    def _stream(self) -> MixedStream:
        stream = StreamConfig(
            batch_size=self.config.batch_size // self.worker.world_size,
            clip_seconds=self.config.clip_seconds,
            replay_ratio=0.0,
            seed=self.config.seed,
        )
        rank, world_size, _ = self.worker
        whole, none = Source(self.store, self.index), Source(self.store, self.index[:0])
        return MixedStream(whole, none, stream, rank=rank, world_size=world_size)

    @torch.no_grad()
    def _start_tokenizer(self) -> None:
        """The tokenizer's encoder starts from iteration 1, its codebook at k-means of the first batch."""
        self.tokenizer.encoder.load_state_dict(self.encoder.state_dict())
        batch = self._stream().batch(0).to(self.worker.device)
        inputs = model_inputs(batch.waveform, batch.padding, self.tokenizer.encoder.config.fbank)
        embedding = self.tokenizer(*inputs).embedding[~inputs.padding]
        self.tokenizer.codebook.init_kmeans(embedding, torch.Generator().manual_seed(self.config.seed))
