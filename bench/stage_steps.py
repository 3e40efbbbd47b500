"""Steps of either stage by the loop itself, for BEATs-base on clips of 10 s of noise."""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

import torch
from torch import nn

from sonar.data.batch import Batch
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.fbank import SAMPLE_RATE
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig
from sonar.train.accumulation import Precision
from sonar.train.loop import Stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.regulariser import Regulariser
from sonar.train.tokenizer_objective import TokenizerObjective

CLIP_SECONDS = 10
StageName = Literal["model", "tokenizer"]
Layers = Literal["plain", "checkpointed", "compiled"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Kind(NamedTuple):
    """A kind of step: its stage, its precision, and how its layers run."""

    stage: StageName
    precision: Precision
    layers: Layers


class Noise:
    """Batches of noise in memory."""

    def __init__(self, *sizes: int) -> None:
        """Of so many clips each, the last size again and again."""
        generator = torch.Generator().manual_seed(0)
        wave = 0.1 * torch.randn(max(sizes), CLIP_SECONDS * SAMPLE_RATE, generator=generator)
        ids = tuple(str(number) for number in range(len(wave)))
        self._batch = Batch(wave, torch.zeros(wave.shape, dtype=torch.bool), torch.arange(len(wave)) % 2 == 1, ids)
        self._sizes = sizes

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self._batch.rows(0, self._sizes[min(step, len(self._sizes) - 1)])


class Models:
    """BEATs-base with its heads, and a teacher of each kind, as an adaptation holds them."""

    def __init__(self) -> None:
        """Draw the weights."""
        generator = torch.Generator().manual_seed(0)
        shape = EncoderConfig()
        self.encoder = BeatsEncoder(shape).initialise(generator).to(DEVICE)
        self.predictor = LabelPredictor(PredictorConfig()).initialise(generator).to(DEVICE)
        self.tokenizer = Tokenizer(TokenizerConfig(encoder=shape)).initialise(generator).to(DEVICE)
        self.old_encoder = copy.deepcopy(self.encoder)
        self.old_tokenizer = copy.deepcopy(self.tokenizer)

    def stage(self, kind: Kind, *sizes: int) -> Stage:
        """A stage of such steps, one on each of so many clips."""
        objective: nn.Module
        distill = DistillConfig()
        if kind.stage == "model":
            held = Regulariser(self.old_encoder, distill)
            objective = ModelObjective(self.encoder, self.predictor, self.tokenizer, held, distill)
            trained: tuple[nn.Module, ...] = (self.encoder, self.predictor)
        else:
            codebook = CodebookConfig(revival="none", collapse_fraction=0.0)
            objective = TokenizerObjective(self.tokenizer, self.old_encoder, self.old_tokenizer, distill, codebook)
            trained = (self.tokenizer,)
        return Stage(
            name=kind.stage,
            objective=objective,
            trained=trained,
            stream=Noise(*sizes),
            num_steps=len(sizes),
            optim=OptimConfig(),
            seed=0,
            precision=kind.precision,
            checkpoint_activations=kind.layers == "checkpointed",
            compile_layers=kind.layers == "compiled",
        )
