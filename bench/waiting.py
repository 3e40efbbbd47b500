"""The share of a training step that is spent waiting for its batch, with the small base and with BEATs-base.

Pre-training by codes of a random projection: the shortest steps that there are, so that a batch has the least time to
be made while the step before runs. Clips of 12 s lie in shards on disk and are cropped anew in every epoch.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from harness import Section, main, spread, table

from sonar.data.corpora import load_corpus
from sonar.data.manifest import manifest_hash
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_parts import write_part
from sonar.data.shard_plan import plan_parts
from sonar.data.shards import encode_guarded, finish
from sonar.data.stream import ClipStore
from sonar.train.loop import StepReport
from sonar.train.pretrain import PretrainConfig, pretrain
from sonar.train.stages import Hooks, local_worker

RATE, SECONDS, NUM_CLIPS = 16_000, 12, 64
WARMUPS = 2  # steps that are left out
GOAL = 0.05
BEATS_BASE = PretrainConfig(
    num_layers=12,
    width=768,
    ffn_width=3072,
    num_heads=12,
    patch_width=512,
    position_kernel=128,
    num_codes=1024,
    code_width=256,
    head_layers=3,
    batch_size=2,
    clip_seconds=10.0,
)


def section(full: bool) -> Section:
    """Measure and say; quick: fewer steps."""
    bases = {"small base": (PretrainConfig(), 40 if full else 14), "BEATs-base": (BEATS_BASE, 10 if full else 5)}
    with tempfile.TemporaryDirectory() as place:
        store = _shards(Path(place))
        measured = {name: _steps(store, *of) for name, of in bases.items()}
    rows, record = [], {}
    for name, metrics in measured.items():
        config, _ = bases[name]
        seconds, shares = ([one[key] for one in metrics] for key in ("step_seconds", "input_wait_share"))
        met = "met" if statistics.median(shares) <= GOAL else "missed"
        audio = f"{config.batch_size} x {config.clip_seconds:g} s"
        rows.append([name, audio, spread(seconds), spread([100 * share for share in shares]), met])
        record[name] = {"step_seconds": seconds, "input_wait_share": shares}
    header = ("model", "batch", "seconds a step", "% of it waiting for the batch", f"goal: at most {GOAL:.0%}")
    return Section("Waiting for a batch", table(header, rows), record)


def _steps(store: ClipStore, config: PretrainConfig, num_steps: int) -> list[dict[str, float]]:
    """What the steps of a training showed, without the first ones."""
    reports: list[StepReport] = []
    short = replace(config, projection_steps=num_steps, tokenizer_steps=0, model_steps=0)
    pretrain(store, np.arange(len(store)), short, Hooks(reports.append, lambda state: None), local_worker())
    return [report.metrics for report in reports[WARMUPS:]]


def _shards(place: Path) -> ClipStore:
    """Noise, written without a cluster."""
    (place / "audio").mkdir()
    for number in range(NUM_CLIPS):
        noise = 0.1 * np.random.default_rng(number).standard_normal(SECONDS * RATE)
        soundfile.write(place / "audio" / f"{number}.wav", noise, RATE)
    clips = load_corpus(place / "audio", domain="bench").clips
    folder = ShardFolder(place / "shards")
    finish([write_part(part, folder, encode_guarded) for part in plan_parts(clips)], folder, manifest_hash(clips))
    return ClipStore(place / "shards")


if __name__ == "__main__":
    main(section, "waiting")
