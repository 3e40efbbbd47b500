"""One step of the tokenizer stage: plain, ours, and ours with what the old models say kept.

BEATs-base with random weights, clips that come whole. The old encoder and the old tokenizer pass over a clip
once for a base, and not once for an epoch and trial: a later one reads two half-precision files. On a GPU where there
is one; torch alone is needed.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from harness import Section, main, ratios, spread, table, take_turns
from plain import PlainTransformer
from plain_weights import plain_encoder, plain_names
from torch import Tensor, nn

from sonar.data.batch import Batch
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.inputs import Inputs, model_inputs
from sonar.model.tokenizer import Tokenizer, TokenizerConfig
from sonar.model.transformer import Transformer
from sonar.train.accumulation import Precision, accumulate
from sonar.train.feature_folder import FeatureFolder
from sonar.train.kept import FeatureStore, KeptFeatures, Keys
from sonar.train.objective import DistillConfig, Moment
from sonar.train.optim import OptimConfig, make_optimizer
from sonar.train.tokenizer_objective import TokenizerObjective

RATE = 16_000
SHAPE = replace(EncoderConfig(), dropout=0.0, attention_dropout=0.0)  # as public checkpoints have it
CODEBOOK = CodebookConfig(collapse_fraction=0.0)  # random weights use few codes
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MAX_BYTES = 10**10


class Audio(NamedTuple):
    """Clips of a batch, and the seconds of each."""

    num_clips: int
    seconds: float


class Models(NamedTuple):
    """A tokenizer that is trained, and the old encoder and tokenizer."""

    student: Tokenizer
    teacher: BeatsEncoder
    old: Tokenizer


class PlainStack(nn.Module):
    """The plain layers behind the estimator's own call."""

    def __init__(self, ours: Transformer) -> None:
        """Of the same weights as ours."""
        super().__init__()
        self.plain = PlainTransformer(ours.config)
        named = plain_names(ours.state_dict())
        self.plain.load_state_dict({name: named[name] for name in self.plain.state_dict()})

    def position_bias(self, length: int) -> None:
        """The plain layers make their own."""

    def forward(self, hidden: Tensor, padding: Tensor | None, bias: None) -> tuple[Tensor]:
        """(B, L, D) to the last layer's output."""
        return (self.plain(hidden, padding)[-1],)


class NewEveryTime:
    """A store that has met no clip: what a first epoch costs, with the writing."""

    def __init__(self, folder: FeatureFolder) -> None:
        """Writes into a folder."""
        self._folder, self._numbers = folder, itertools.count()

    def read(self, name: str, shape: tuple[int, int]) -> None:
        """Nothing."""

    def keep(self, name: str, features: Tensor) -> None:
        """Under a name that nobody reads."""
        self._folder.keep(f"{next(self._numbers)}-{name}", features)


class Trainer:
    """A student with its optimiser and a batch."""

    def __init__(self, models: Models, batch: Batch) -> None:
        """Take a step on a second of audio, so that the optimiser has its state."""
        self.models, self.batch = models, batch
        models.student.requires_grad_(True).train()
        self._parameters = list(models.student.parameters())
        self._optimizer = make_optimizer(self._parameters, OptimConfig())
        self.step(_objective(models, None), "fp32", _batch(Audio(1, 1.0)).to(batch.waveform.device))

    def step(self, objective: TokenizerObjective, precision: Precision, batch: Batch | None = None) -> None:
        """One step of the stage, as the loop takes it."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = accumulate(objective, batch or self.batch, torch.Generator(), 1, precision)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        objective.after_step(losses.assignment, torch.Generator(), Moment("tokenizer", 0, 100))


def section(full: bool) -> Section:
    """Measure and say; quick: one clip of 5 s, without the plain way in bf16 and the first epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    num_clips = (32 if device.type == "cuda" else 2) if full else 1
    rounds = (10 if device.type == "cuda" else 3) if full else 1
    audio = Audio(num_clips, 10.0 if full else 5.0)
    batch = _batch(audio).to(device)
    models = _models(device)
    with tempfile.TemporaryDirectory() as place:
        store = FeatureFolder(Path(place) / "kept", MAX_BYTES)
        done_plainly = _plain(models)
        rounding = _rounding(done_plainly, models, batch, store)
        plain, ours = Trainer(done_plainly, batch), Trainer(models, batch)
        parts = take_turns(_parts(models, batch, store), rounds)  # and what is read later is kept now
        found = take_turns(_ways(plain, ours, Path(place), store, full), rounds, warmups=int(device.type == "cuda"))
        num_bytes = sum(path.stat().st_size for path in (Path(place) / "kept").glob("*/*"))
    per_hour = num_bytes / (len(PRECISIONS) * num_clips) * 3600 / audio.seconds
    lines = _table(found, audio) + _parts_table(parts, num_clips) + _sentences(found, rounding, per_hour)
    record = {"steps": found, "parts": parts, "rounding": rounding, "bytes_per_hour": per_hour, "clips": num_clips}
    return Section("One step of the tokenizer stage", lines, record)


def _ways(
    plain: Trainer, ours: Trainer, place: Path, store: FeatureFolder, full: bool
) -> dict[str, Callable[[], object]]:
    on_the_fly, kept = _objective(ours.models, None), _objective(ours.models, store)
    first = _objective(ours.models, NewEveryTime(FeatureFolder(place / "first", MAX_BYTES)))
    done_plainly = _objective(plain.models, None)
    ways: dict[str, Callable[[], object]] = {}
    for precision in PRECISIONS:
        if full or precision == "fp32":
            ways[f"plain, {precision}"] = partial(plain.step, done_plainly, precision)
        ways[f"ours, nothing kept, {precision}"] = partial(ours.step, on_the_fly, precision)
        if full:
            ways[f"ours, first epoch, {precision}"] = partial(ours.step, first, precision)
        ways[f"ours, later epochs and trials, {precision}"] = partial(ours.step, kept, precision)
    return ways


def _parts(models: Models, batch: Batch, store: FeatureFolder) -> dict[str, Callable[[], object]]:
    front_end = partial(model_inputs, batch.waveform, batch.padding, SHAPE.fbank)
    inputs = front_end()
    ways: dict[str, Callable[[], object]] = {"front end": front_end}
    for precision in PRECISIONS:
        for name, of in (("computed", None), ("read", store)):
            both = [KeptFeatures(encoder, of) for encoder in (models.teacher, models.old.encoder)]
            ways[f"old models, {name}, {precision}"] = partial(_said, both, inputs, batch.keys, precision)
    return ways


def _said(both: list[KeptFeatures], inputs: Inputs, keys: Keys, precision: Precision) -> None:
    with torch.autocast(inputs.log_mel.device.type, torch.bfloat16, precision == "bf16"):
        for one in both:
            one(inputs, keys)


def _rounding(plain: Models, ours: Models, batch: Batch, store: FeatureFolder) -> dict[str, dict[str, float]]:
    """The losses before the first step, in fp32: of the plain way, of ours, and of ours with rounded features."""
    found = {}
    for name, models, of in (("plain", plain, None), ("ours", ours, None), ("rounded", ours, store)):
        with torch.no_grad():
            terms = _objective(models, of)(batch, torch.Generator()).terms
        found[name] = {term: float(value) for term, value in terms.items()}
    difference = abs(found["plain"]["alignment"] - found["ours"]["alignment"])
    assert difference < 1e-4, f"both sides do the same work, but their losses differ by {difference}"
    return found


def _objective(models: Models, store: FeatureStore | None) -> TokenizerObjective:
    return TokenizerObjective(*models, DistillConfig(), CODEBOOK, store)


def _models(device: torch.device) -> Models:
    draws = torch.Generator().manual_seed(0)
    student = Tokenizer(TokenizerConfig(encoder=SHAPE)).initialise(draws).to(device)
    return Models(student, BeatsEncoder(SHAPE).initialise(draws).to(device), copy.deepcopy(student))


def _plain(ours: Models) -> Models:
    student, old = copy.deepcopy(ours.student), copy.deepcopy(ours.old)
    device = student.codebook.vectors.device
    student.encoder, old.encoder = plain_encoder(student.encoder), plain_encoder(old.encoder)  # type: ignore[assignment]
    assert student.estimator is not None
    student.estimator.transformer = PlainStack(student.estimator.transformer).to(device)  # type: ignore[assignment]
    return Models(student, plain_encoder(ours.teacher), old)  # type: ignore[arg-type]


def _batch(audio: Audio) -> Batch:
    """Whole clips of noise."""
    shape = audio.num_clips, round(audio.seconds * RATE)
    waveform = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    padding, is_replay = torch.zeros(shape, dtype=torch.bool), torch.zeros(audio.num_clips, dtype=torch.bool)
    names = tuple(f"{number:032x}" for number in range(audio.num_clips))
    return Batch(waveform, padding, is_replay, names, names)


def _table(found: dict[str, list[float]], audio: Audio) -> list[str]:
    plain = found["plain, fp32"]
    rows = [
        [
            name,
            spread(seconds),
            f"{audio.num_clips / statistics.median(seconds):.3g}",
            f"{spread(ratios(plain, seconds))} x",
        ]
        for name, seconds in found.items()
    ]
    header = (f"step of {audio.num_clips} x {audio.seconds:g} s", "seconds", "clips/s", "as fast as plain in fp32")
    return table(header, rows)


def _parts_table(parts: dict[str, list[float]], num_clips: int) -> list[str]:
    rows = [[name, spread([1e3 * second / num_clips for second in seconds])] for name, seconds in parts.items()]
    return table(("part", "milliseconds a clip"), rows)


def _sentences(found: dict[str, list[float]], rounding: dict[str, dict[str, float]], per_hour: float) -> list[str]:
    gains = [
        f"{spread(ratios(found[f'ours, nothing kept, {p}'], found[f'ours, later epochs and trials, {p}']))} in {p}"
        for p in PRECISIONS
    ]
    exact, rounded = rounding["ours"], rounding["rounded"]
    drift = DistillConfig().tokenizer_weight * rounded["tokenizer_drift"]
    return [
        f"Kept features make a step {' and '.join(gains)} times as fast, for {per_hour / 1e6:.0f} MB of disk an hour "
        "of audio (old encoder and old tokenizer, of one precision), read from the page cache here.",
        f"Rounding to half precision moves the alignment loss of {exact['alignment']:.3f} by "
        f"{abs(rounded['alignment'] - exact['alignment']):.1e}; the weighted drift of a student that has not moved "
        f"is {drift:.1e} instead of 0.",
        "",
    ]


if __name__ == "__main__":
    main(section, "tokenizer_step")
