"""A step of the model stage, ours and done plainly, to be timed: by part on a CPU, by the loop itself anywhere."""

# Shapes: B clips, L patches, N masked patches, K codes, D width.

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from plain import PlainEncoder, PlainPredictor, PlainTokenizer
from plain_weights import plain_encoder, plain_predictor, plain_tokenizer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sonar.data.batch import Batch
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.inputs import Inputs, model_inputs
from sonar.model.losses import masked_prediction_loss, normalised_l2_loss
from sonar.model.masking import random_mask
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig
from sonar.train.accumulation import Precision
from sonar.train.loop import Stage, StepReport, run_stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig, make_optimizer
from sonar.train.regulariser import Regulariser

PARTS = ("log-mel", "codes", "student + predictor", "teacher", "optimiser")
CLIP_SAMPLES = 160_000  # 10 s


class Models(NamedTuple):
    """What a step of the model stage runs."""

    student: BeatsEncoder
    predictor: LabelPredictor
    teacher: BeatsEncoder
    tokenizer: Tokenizer


class PlainModels(NamedTuple):
    """The same, done plainly."""

    student: PlainEncoder
    predictor: PlainPredictor
    teacher: PlainEncoder
    tokenizer: PlainTokenizer


class Clock:
    """Seconds by part; a part may be within another, which then does not count it."""

    def __init__(self) -> None:
        """Nothing has run."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs within belongs to the part."""
        self._credit()
        self._open.append(name)
        yield
        self._credit()
        self._open.pop()

    def _credit(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def base_models(encoder: EncoderConfig, num_codes: int = 1024, device: str = "cpu") -> Models:
    """A student away from its teacher, both random."""
    draws = torch.Generator().manual_seed(0)
    teacher, student = (BeatsEncoder(encoder).initialise(draws) for _ in range(2))
    predictor = LabelPredictor(PredictorConfig(transformer=encoder.stack(3), num_codes=num_codes)).initialise(draws)
    tokenizer = Tokenizer(TokenizerConfig(encoder=encoder, num_codes=num_codes), with_estimator=False)
    tokenizer.initialise(draws)
    for model in (student, predictor, teacher, tokenizer):
        model.to(device)
    return Models(student.train(), predictor.train(), teacher.eval(), tokenizer.eval())


def plain_models(ours: Models) -> PlainModels:
    """Plain models of the same weights."""
    student, teacher = plain_encoder(ours.student), plain_encoder(ours.teacher)
    return PlainModels(student, plain_predictor(ours.predictor), teacher, plain_tokenizer(ours.tokenizer))


def noise_batch(clips: int, samples: int = CLIP_SAMPLES) -> Batch:
    """Whole clips of noise, so that their codes can be kept."""
    waveform = 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))
    names = tuple(f"clip {row}" for row in range(clips))
    is_replay = torch.arange(clips) % 2 == 0
    return Batch(waveform, torch.zeros(clips, samples, dtype=torch.bool), is_replay, names, names)


def objective_of(models: Models) -> ModelObjective:
    """What the model stage minimises, at the paper's weights."""
    config = DistillConfig()
    pull = Regulariser(models.teacher, config)
    return ModelObjective(models.student, models.predictor, models.tokenizer, pull, config)


def plain_loss(models: PlainModels, inputs: Inputs, codes: Tensor, draws: torch.Generator) -> Tensor:
    """() the same loss as ours, read off all patches."""
    config = DistillConfig()
    mask = random_mask(inputs.padding, config.mask_ratio, draws)
    unseen = inputs.padding | mask.masked  # (B, L)
    encoded = models.student(inputs.log_mel, unseen).last  # (B, L, D)
    logits = models.predictor(encoded, mask.masked, inputs.padding)  # (N, K)
    with torch.no_grad():
        target = models.teacher(inputs.log_mel, unseen).last  # (B, L, D)
    drift = normalised_l2_loss(encoded, target, ~unseen, "sum")
    return masked_prediction_loss(logits, codes[mask.masked]) + config.model_weight * drift


class TimedStep:
    """An optimiser step whose parts are timed; for a CPU, which has nothing to wait for."""

    def __init__(self, models: Models | PlainModels, batch: Batch) -> None:
        """Prepare what a run prepares once; ours knows the codes already."""
        self._models, self._batch = models, batch
        self._fbank = models.student.config.fbank
        self._trained = [*models.student.parameters(), *models.predictor.parameters()]
        self._optimizer = make_optimizer(self._trained, OptimConfig())
        self._kept: Tensor | None = None
        self._objective: ModelObjective | None = None
        if isinstance(models, Models):
            self._objective = objective_of(models)
            self._kept = models.tokenizer.codes(*self._inputs())

    def __call__(self, precision: Precision) -> dict[str, float]:
        """Seconds by part."""
        clock = Clock()
        draws = torch.Generator().manual_seed(2)
        with clock.part("optimiser"):
            self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, precision == "bf16"), _timed(self._models.teacher, clock):
            with clock.part("log-mel"):
                inputs = self._inputs()
            with clock.part("codes"):
                codes = self._models.tokenizer.codes(*inputs) if self._kept is None else self._kept.clone()
            with clock.part("student + predictor"):
                loss = self._loss(inputs, codes, draws)
        with clock.part("student + predictor"):
            loss.backward()
        with clock.part("optimiser"):
            nn.utils.clip_grad_norm_(self._trained, 1.0)
            self._optimizer.step()
        return clock.seconds

    def _inputs(self) -> Inputs:
        return model_inputs(self._batch.waveform, self._batch.padding, self._fbank)

    def _loss(self, inputs: Inputs, codes: Tensor, draws: torch.Generator) -> Tensor:
        if self._objective is not None:
            return self._objective.losses(inputs, codes, self._batch.is_replay, draws).total
        assert isinstance(self._models, PlainModels)
        return plain_loss(self._models, inputs, codes, draws)


@contextmanager
def _timed(teacher: nn.Module, clock: Clock) -> Iterator[None]:
    """The teacher's forward as a part of its own."""
    open_parts: list[Any] = []

    def begin(*_: object) -> None:
        open_parts.append(clock.part("teacher"))
        open_parts[-1].__enter__()

    def end(*_: object) -> None:
        open_parts.pop().__exit__(None, None, None)

    handles = teacher.register_forward_pre_hook(begin), teacher.register_forward_hook(end)
    yield
    for handle in handles:
        handle.remove()


def step_flop(models: Models, batch: Batch) -> float:
    """Floating-point operations that a step needs: what is trained counts thrice, for its two gradients; no codes."""
    inputs = model_inputs(batch.waveform, batch.padding, models.student.config.fbank)
    mask = random_mask(inputs.padding, DistillConfig().mask_ratio, torch.Generator().manual_seed(2))
    with torch.no_grad(), FlopCounterMode(display=False) as encoder:
        encoded = models.teacher(*inputs, mask.visible, mask.visible_padding).last
    with torch.no_grad(), FlopCounterMode(display=False) as predictor:
        models.predictor(encoded, mask, inputs.padding)
    return float((3 + 1) * encoder.get_total_flops() + 3 * predictor.get_total_flops())


class SameBatch:
    """A stream that gives one batch again and again."""

    def __init__(self, batch: Batch) -> None:
        """Of this batch."""
        self._batch = batch

    def batch(self, step: int) -> Batch:
        """The batch, whatever the step."""
        del step
        return self._batch


def loop_seconds(models: Models, batch: Batch, num_steps: int, precision: Precision, warmups: int = 3) -> list[float]:
    """Seconds of every step of the training loop itself, input and metrics included."""
    objective = objective_of(models)
    seconds: list[float] = []

    def note(report: StepReport, _: object) -> None:
        seconds.append(report.metrics["step_seconds"])

    stage = Stage(
        name="model",
        objective=objective,
        trained=(models.student, models.predictor),
        stream=SameBatch(batch),
        num_steps=warmups + num_steps,
        optim=OptimConfig(),
        seed=0,
        precision=precision,
    )
    run_stage(stage, note)
    return seconds[warmups:]
