"""Audio files to batches, against a torch DataLoader: `python bench/input.py --audio FOLDER`.

How many clips a second come from files to batches, by shards (a Ray Data pass once, then the
memory-mapped stream) and by a torch DataLoader that decodes with the same function in as many worker processes, in
the first epoch and in later ones? All ways take turns, round by round. Prints Markdown. What a training step waits for
its batch: `bench/waiting.py`; what a worker holds for many clips: `bench/stream_memory.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from harness import describe, machine, spread
from stream_memory import BATCH_SIZE, SEED, start_ray, use
from torch.utils.data import DataLoader, Dataset

from sonar.data.audio import seconds_to_samples
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.prefetch import Prefetch
from sonar.data.recording import decode_clip
from sonar.data.shards import write_shards
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig, file_batches
from sonar.data.synth import write_synth_corpus


class Epochs(NamedTuple):
    """Seconds of one way in one round: what is done once, and an epoch after it."""

    first: float
    later: float


class Decoded(Dataset[np.ndarray]):
    """What a user writes first: decode when asked, crop by chance."""

    def __init__(self, clips: list[Clip], clip_seconds: float) -> None:
        self._clips, self._length = clips, seconds_to_samples(clip_seconds)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: int) -> np.ndarray:
        """(T,) float32, T the crop or what there is."""
        clip = self._clips[row]
        wave = decode_clip(clip.path, clip.start_s, clip.duration_s)
        begin = int(torch.randint(max(0, len(wave) - self._length) + 1, ()))
        return wave[begin : begin + self._length]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, default=None, help="folder of one corpus; without it one is made")
    parser.add_argument("--repeat", type=int, default=1, help="list every file so many times")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that decode, of both ways")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clip-seconds", type=float, default=5.0)
    options, made_by = parser.parse_args(), machine()
    with tempfile.TemporaryDirectory() as folder:
        _compare(options, Path(folder), made_by)


def _compare(options: argparse.Namespace, folder: Path, made_by: dict[str, Any]) -> None:
    audio = options.audio or write_synth_corpus("bio", folder / "audio", seed=SEED)
    found = load_corpus(audio, domain="bench").clips
    clips = [
        clip._replace(clip_id=f"{clip.clip_id}#{n}", split="train") for n in range(options.repeat) for clip in found
    ]
    start_ray(options.workers)
    rounds: dict[str, list[Epochs]] = {"shards": [], "files": [], "DataLoader": []}
    for number in range(-1, options.rounds):  # the first one warms up: workers start, files come into memory
        shards = folder / f"shards-{number}"
        measured = {
            "shards": _by_shards(clips, shards, options.workers, options.clip_seconds),
            "files": _by_files(clips, options.workers, options.clip_seconds),
            "DataLoader": _by_loader(clips, options.workers, options.clip_seconds),
        }
        if number >= 0:
            for name, seconds in measured.items():
                rounds[name].append(seconds)
    ray.shutdown()
    _print_head(options, clips, made_by)
    _print_epochs(rounds, len(clips))


def _by_shards(clips: list[Clip], folder: Path, workers: int, clip_seconds: float) -> Epochs:
    began = time.perf_counter()
    write_shards(clips, folder, concurrency=workers)
    store = ClipStore(folder)
    rows = np.arange(len(store))
    config = StreamConfig(batch_size=BATCH_SIZE, clip_seconds=clip_seconds, replay_ratio=0.0, seed=SEED)
    stream = MixedStream(Source(store, rows), Source(store, rows[:0]), config)

    def epoch(number: int) -> float:
        begin = time.perf_counter()
        first = number * stream.steps_per_epoch
        with Prefetch(stream.batch, range(first, first + stream.steps_per_epoch)) as batches:
            use(batch.waveform for batch in batches)
        return time.perf_counter() - begin

    epoch(0)
    return Epochs(time.perf_counter() - began, epoch(1))


def _by_files(clips: list[Clip], workers: int, clip_seconds: float) -> Epochs:
    """Guarded processes that decode; started anew for every epoch."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        use(bucket.batch.waveform for bucket in file_batches(clips, clip_seconds, workers=workers))
        seconds.append(time.perf_counter() - began)
    return Epochs(*seconds)


def _by_loader(clips: list[Clip], workers: int, clip_seconds: float) -> Epochs:
    began = time.perf_counter()
    length = seconds_to_samples(clip_seconds)
    loader = DataLoader(
        Decoded(clips, clip_seconds),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        collate_fn=lambda waves: torch.from_numpy(np.stack([np.pad(wave, (0, length - len(wave))) for wave in waves])),
    )
    use(loader)
    first = time.perf_counter() - began
    began = time.perf_counter()
    use(loader)
    return Epochs(first, time.perf_counter() - began)


def _print_head(options: argparse.Namespace, clips: list[Clip], made_by: dict[str, Any]) -> None:
    told = {name: value for name, value in vars(options).items() if value is not None}
    hours = sum(clip.duration_s for clip in clips) / 3600
    print(f"`python bench/input.py` with {told}: {len(clips)} clips, {hours:.2f} h. {describe(made_by)}\n")


def _print_epochs(rounds: dict[str, list[Epochs]], num_clips: int) -> None:
    print("| audio files to batches of 32, by | first epoch, clips/s | later epochs, clips/s | first epoch, s |")
    print("|---|---|---|---|")
    for name, measured in rounds.items():
        first = spread([num_clips / one.first for one in measured], ".0f")
        later = spread([num_clips / one.later for one in measured], ".0f")
        print(f"| {name} | {first} | {later} | {spread([one.first for one in measured], '.2f')} |")
    took = {
        name: Epochs(*(statistics.median(values) for values in zip(*measured, strict=True)))
        for name, measured in rounds.items()
    }
    ours, theirs = took["shards"], took["DataLoader"]
    for name in ("shards", "files"):
        ratios = Epochs(theirs.first / took[name].first, theirs.later / took[name].later)
        print(f"\n{name} / DataLoader: first epoch {ratios.first:.2f}x, later ones {ratios.later:.2f}x.", end="")
    gained, extra = theirs.later - ours.later, max(0.0, ours.first - theirs.first)
    epochs = f"shards are ahead after {1 + -int(-extra // gained)} epochs" if gained > 0 else "shards never win"
    ten = (theirs.first + 9 * theirs.later) / (ours.first + 9 * ours.later)
    print(f"\nThe first epoch by shards costs {extra:.1f} s more, a later one {gained:.1f} s less: {epochs}.")
    print(f"Ten epochs, as an adaptation trains: shards / DataLoader {ten:.2f}x.\n")


if __name__ == "__main__":
    main()
