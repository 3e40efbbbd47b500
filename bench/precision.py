"""Whether bf16 autocast trains as fp32 does: loss curves of whole runs of both precisions, against the noise of seeds.

    python bench/precision.py runs/bench                                                   # embedded audio, a tiny base
    python bench/precision.py runs/bench --full --data DIR --prior DIR --base FOLDER       # one's own

Each seed trains the tokenizer stage, the predictor and the model stage once in fp32 and once in bf16, from the same
base on the same batches and masks; the codebook, its moving averages and the projection are fp32 in both. The curves
are cut into windows; in each, the difference of the means of both precisions stands against what seeds of one
precision differ by (Welch's t, n seeds each). With three seeds chance alone exceeds 2 in one window of nine.
"""

from __future__ import annotations

import copy
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from harness import Section, machine, table, threads, write_section
from torch import Tensor
from torch.nn import functional

from sonar.checkpoint import Checkpoint, load_checkpoint
from sonar.config import override
from sonar.data.shard_audio import middle
from sonar.data.stream import ClipStore
from sonar.experiment import SMALL_SCALE, TrialConfig
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import model_inputs
from sonar.search.base import find_base
from sonar.search.prepare import load_domain, load_prior, shard_corpora
from sonar.search.run import ray_session
from sonar.train.adapt import Mixture, adapt
from sonar.train.churn import spread
from sonar.train.loop import StepReport
from sonar.train.stages import Hooks, local_worker

PRECISIONS = ("fp32", "bf16")
SHOWN = {
    "tokenizer/alignment": "tokenizer stage: alignment",
    "tokenizer/commitment": "tokenizer stage: commitment",
    "tokenizer/codebook/perplexity": "tokenizer stage: codebook perplexity",
    "model/masked_prediction": "model stage: masked prediction, nats",
    "model/masked_accuracy": "model stage: masked accuracy",
    "model/feature_drift": "model stage: drift of features",
}
WINDOWS = 5
DRIFT_CLIPS = 64
NOISE = 2.0  # standard errors


class Audio(NamedTuple):
    """The domain's name, its corpus, those of the prior, and the base; None or empty: embedded audio, a tiny base."""

    domain: str
    data: str | None
    prior: tuple[str, ...]
    base: str | None


class Scale(NamedTuple):
    """How much is trained."""

    seeds: int
    tokenizer_steps: int
    model_steps: int
    batch_size: int


QUICK = Scale(seeds=2, tokenizer_steps=20, model_steps=60, batch_size=8)
FULL = Scale(seeds=3, tokenizer_steps=100, model_steps=300, batch_size=8)

Curves = dict[str, list[float]]  # of one run: name -> value of every step; `drift` has one value


def window_means(curve: Sequence[float], windows: int = WINDOWS) -> list[float]:
    """Means of consecutive windows of about equal length."""
    return [statistics.fmean(part) for part in np.array_split(np.asarray(curve), min(windows, len(curve)))]


class Difference(NamedTuple):
    """Both precisions at one window: their means, what seeds differ by, and the difference in standard errors."""

    fp32: float
    bf16: float
    seed_sd: float
    errors: float


def compare(fp32: Sequence[float], bf16: Sequence[float]) -> Difference:
    """Runs of n seeds each: the means, the pooled sd over seeds, (bf16 - fp32) / (sd sqrt(2 / n))."""
    means = statistics.fmean(fp32), statistics.fmean(bf16)
    sd = math.sqrt((statistics.variance(fp32) + statistics.variance(bf16)) / 2)
    difference = means[1] - means[0]
    errors = difference / (sd * math.sqrt(2 / len(fp32))) if sd else math.copysign(math.inf, difference)
    return Difference(*means, sd, errors if difference else 0.0)


def train_both(base: Checkpoint, mixture: Mixture, config: TrialConfig, seeds: int) -> dict[str, list[Curves]]:
    """Curves of every seed at each precision, in turns."""
    curves: dict[str, list[Curves]] = {precision: [] for precision in PRECISIONS}
    for seed in range(seeds):
        for precision in PRECISIONS:
            one = override(config, {"training.seed": seed, "training.precision": precision})
            curves[precision].append(_run(base, mixture, one))
            typer.echo(f"seed {seed}, {precision}: {len(curves[precision][-1]['model/loss'])} steps", err=True)
    return curves


def _run(base: Checkpoint, mixture: Mixture, config: TrialConfig) -> Curves:
    curves: Curves = {}

    def note(report: StepReport) -> None:
        for name, value in report.metrics.items():
            curves.setdefault(f"{report.stage}/{name}", []).append(value)

    hooks = Hooks(report=note, save=lambda state: None, save_every=10**9)
    adapted = adapt(base, mixture, config.adapt_config(), hooks, local_worker())
    old, new = (_embedded(encoder, mixture, config) for encoder in (base.encoder, adapted.encoder))
    curves["drift"] = [float((1 - functional.cosine_similarity(old, new)).mean())]
    return curves


@torch.no_grad()
def _embedded(encoder: BeatsEncoder, mixture: Mixture, config: TrialConfig) -> Tensor:
    """(N, D) mean outputs of clips of both sides, in fp32."""
    encoder = copy.deepcopy(encoder).eval()
    samples = round(config.training.clip_seconds * 16_000)
    vectors = []
    for store, rows in ((mixture.new, mixture.new_index), (mixture.prior, mixture.prior_index)):
        for row in spread(rows, DRIFT_CLIPS):
            wave = torch.from_numpy(middle(store.waveform(int(row)), samples))[None]  # (1, T)
            mel, padding = model_inputs(wave, torch.zeros(wave.shape, dtype=torch.bool), encoder.config.fbank)
            vectors.append(encoder(mel, padding).last.mean(1))
    return torch.cat(vectors)


def section_of(curves: dict[str, list[Curves]], scale: Scale, audio: Audio) -> Section:
    """The tables and what they say."""
    windows = {name: by_window(curves, name) for name in SHOWN}
    drift = compare(*([run["drift"][0] for run in curves[precision]] for precision in PRECISIONS))
    rows = [
        [title, *(f"{w.fp32:.4g} / {w.bf16:.4g} ({w.errors:+.1f})" for w in windows[name])]
        for name, title in SHOWN.items()
    ]
    every = [abs(w.errors) for some in windows.values() for w in some] + [abs(drift.errors)]
    beyond = sum(errors > NOISE for errors in every)
    apart = statistics.median(share_of_seeds(curves, name) for name in SHOWN)
    where = f"`{audio.data}`, base `{audio.base}`" if audio.data else "the embedded audio, a tiny base"
    lines = [
        f"{scale.seeds} seeds, {scale.tokenizer_steps} steps of the tokenizer stage and {scale.model_steps} of the "
        f"model stage, batches of {scale.batch_size} clips, on {where}. Means of fp32 / bf16 over {WINDOWS} windows of "
        "the curve; in brackets the difference in standard errors over seeds:",
        "",
        *table(["", *(f"window {number + 1}" for number in range(WINDOWS))], rows),
        f"Drift of the embeddings by the whole run, 1 - cosine: fp32 {drift.fp32:.4g}, bf16 {drift.bf16:.4g} "
        f"({drift.errors:+.1f}).",
        "",
        f"Beyond {NOISE:g} standard errors: {beyond} of {len(every)} comparisons; the largest is {max(every):.1f}. In "
        f"the last window the precisions of one seed differ by {apart:.2f} of what seeds differ by (median).",
    ]
    record = {
        "scale": scale._asdict(),
        "audio": audio._asdict(),
        "curves": curves,
        "windows": {name: [w._asdict() for w in some] for name, some in windows.items()},
        "drift": drift._asdict(),
    }
    return Section("bf16 against fp32: loss curves", lines, record)


def by_window(curves: dict[str, list[Curves]], name: str) -> list[Difference]:
    """Both precisions in every window of a curve."""
    means = [[window_means(run[name]) for run in curves[precision]] for precision in PRECISIONS]  # [precision][seed]
    return [compare(*both) for both in zip(*(zip(*runs, strict=True) for runs in means), strict=True)]


def share_of_seeds(curves: dict[str, list[Curves]], name: str) -> float:
    """In the last window: how far both precisions of a seed are apart (median), in sd over seeds of one precision."""
    last = [[window_means(run[name])[-1] for run in curves[precision]] for precision in PRECISIONS]
    apart = statistics.median(abs(a - b) for a, b in zip(*last, strict=True))
    return apart / compare(*last).seed_sd


def configured(scale: Scale, base: str | None) -> TrialConfig:
    """The small scale at so many steps; without a base a tiny one is made."""
    changes = {
        "training.tokenizer_steps": scale.tokenizer_steps,
        "training.predictor_steps": min(20, scale.model_steps),
        "training.model_steps": scale.model_steps,
        "training.batch_size": scale.batch_size,
        "training.churn_every": 0,
        "codebook.usage_decay": 0.98,  # a quarter of the small scale's tokens a step
        "base.checkpoint": base,
        "base.pretrain.projection_steps": 60,
        "base.pretrain.tokenizer_steps": 40,
        "base.pretrain.model_steps": 60,
    }
    return override(SMALL_SCALE, changes)


def command(
    out: Annotated[Path, typer.Argument(help="Folder for the Markdown and the JSON.")],
    full: Annotated[bool, typer.Option("--full", help="Three hundred steps, three seeds.")] = False,
    domain: Annotated[str, typer.Option(help="Name of the new domain.")] = "bio",
    data: Annotated[str | None, typer.Option(help="Its corpus; embedded audio without.")] = None,
    prior: Annotated[list[str] | None, typer.Option(help="A prior corpus; again for more.")] = None,
    base: Annotated[str | None, typer.Option(help="Folder of the base; a tiny one is made without.")] = None,
) -> None:
    """Train, compare, write."""
    made_by, scale = machine(), FULL if full else QUICK
    audio = Audio(domain, data, tuple(prior or ()), base)
    config = configured(scale, base)
    with tempfile.TemporaryDirectory() as folder, threads(1):
        cache = Path(folder)
        with ray_session("local"):
            sides = [load_domain(domain, data, cache, _say), load_prior(audio.prior, cache, _say)]
            new, prior_side = (ClipStore(place) for place in shard_corpora(sides, cache, _say))
        rows = [store.index(split="train") for store in (new, prior_side)]
        mixture = Mixture(new, rows[0], prior_side, rows[1], rows[1])
        checkpoint = load_checkpoint(find_base(config.base, prior_side.folder, cache, _say))
        found = section_of(train_both(checkpoint, mixture, config, scale.seeds), scale, audio)
    write_section(out, "precision", found, made_by)
    typer.echo(found.markdown())


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(command)
