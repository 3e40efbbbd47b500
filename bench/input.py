"""Audio files to batches, against a torch DataLoader: `python bench/input.py --audio FOLDER`.

Asks two things. How many clips a second come from files to batches, by shards (a Ray Data pass once, then the
memory-mapped stream) and by a torch DataLoader that decodes with the same function in as many worker processes, in
the first epoch and in later ones? How much memory does a worker hold for many clips (`--memory`)? Both ways take turns,
round by round. Prints Markdown. What a training step waits for its batch: `bench/waiting.py`.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch
from torch.utils.data import DataLoader, Dataset

from sonar.data.audio import seconds_to_samples
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.prefetch import Prefetch
from sonar.data.recording import decode_clip
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_parts import INDEX_SCHEMA
from sonar.data.shard_summary import INDEX_FILE, LeftOut, write_summary
from sonar.data.shards import write_shards
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig, file_batches
from sonar.data.synth import write_synth_corpus
from sonar.provenance import provenance

BATCH_SIZE = 32
SEED = 0


class Epochs(NamedTuple):
    """Seconds of one way in one round: what is done once, and an epoch after it."""

    first: float
    later: float


class Held(NamedTuple):
    """Memory of a process, MB: its own, pages of mapped files, and the most of both together."""

    own: float
    mapped: float
    peak: float


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
    parser.add_argument("--memory", action="store_true", help="only the memory of a worker, for 100 k and 1 M clips")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            _print_memory(Path(folder))
        else:
            _compare(options, Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> None:
    audio = options.audio or write_synth_corpus("bio", folder / "audio", seed=SEED)
    found = load_corpus(audio, domain="bench").clips
    clips = [
        clip._replace(clip_id=f"{clip.clip_id}#{n}", split="train") for n in range(options.repeat) for clip in found
    ]
    _start_ray(options.workers)
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
    _print_head(options, clips)
    _print_epochs(rounds, len(clips))


def _start_ray(num_cpus: int) -> None:
    ray.init("local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


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
            _use(batch.waveform for batch in batches)
        return time.perf_counter() - begin

    epoch(0)
    return Epochs(time.perf_counter() - began, epoch(1))


def _by_files(clips: list[Clip], workers: int, clip_seconds: float) -> Epochs:
    """Guarded processes that decode; started anew for every epoch."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        _use(bucket.batch.waveform for bucket in file_batches(clips, clip_seconds, workers=workers))
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
    _use(loader)
    first = time.perf_counter() - began
    began = time.perf_counter()
    _use(loader)
    return Epochs(first, time.perf_counter() - began)


def _use(batches: Iterable[torch.Tensor]) -> None:
    """Look at every batch, as a training step would."""
    for waveform in batches:
        assert waveform[:, 0].isfinite().all()


def _print_head(options: argparse.Namespace, clips: list[Clip]) -> None:
    told = {name: value for name, value in vars(options).items() if value not in (None, False)}
    hours = sum(clip.duration_s for clip in clips) / 3600
    print(f"`python bench/input.py` with {told}, commit {provenance()['commit']}, {time.strftime('%Y-%m-%d')}.")
    print(f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'all')}, ")
    print(f"Python {platform.python_version()}, torch {torch.__version__}; {len(clips)} clips, {hours:.2f} h.\n")


def _print_epochs(rounds: dict[str, list[Epochs]], num_clips: int) -> None:
    print("| audio files to batches of 32, by | first epoch, clips/s | later epochs, clips/s | first epoch, s |")
    print("|---|---|---|---|")
    for name, measured in rounds.items():
        first = _with_spread([num_clips / one.first for one in measured])
        later = _with_spread([num_clips / one.later for one in measured])
        print(f"| {name} | {first} | {later} | {_with_spread([one.first for one in measured], 2)} |")
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


def _with_spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _print_memory(folder: Path) -> None:
    print("| a worker that streams from | own memory, MB | mapped file pages, MB | peak of both, MB |")
    print("|---|---|---|---|")
    audio = write_synth_corpus("bio", folder / "audio", seed=SEED)
    _start_ray(1)
    write_shards(load_corpus(audio, domain="bench").clips, folder / "shards")
    ray.shutdown()
    for name, place, use in (
        ("nothing (imports)", folder / "shards", _import_only),
        ("its own clips", folder / "shards", _stream_from),
        ("100 k clips", _many(folder, 100_000), _stream_from),
        ("1 M clips", _many(folder, 1_000_000), _stream_from),
        ("1 M clips as Python objects", _many(folder, 1_000_000), _hold_objects),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            held: Held = pool.apply(use, (place,))
        print(f"| {name} | {held.own:.0f} | {held.mapped:.0f} | {held.peak:.0f} |")


def _many(folder: Path, num_clips: int) -> Path:
    """Shards whose index names every clip of `folder/shards` again and again, each under an id of its own."""
    place = folder / f"shards-{num_clips}"
    if place.exists():
        return place
    index = pa.ipc.open_file(pa.memory_map(str(folder / "shards" / INDEX_FILE))).read_all()
    rows = np.arange(num_clips)
    index = index.take(pa.array(rows % len(index)))
    ids = [f"corpus/recording-{row:08d}.flac" for row in rows]
    files = [f"../shards/{name}" for name in index["file"].to_pylist()]
    index = index.set_column(0, "clip_id", [ids]).drop_columns("file").append_column("file", [files])
    write_summary(ShardFolder(place), "0" * 12, index.select(INDEX_SCHEMA.names), LeftOut((), {}), {})
    return place


def _import_only(place: Path) -> Held:
    return _held()


def _stream_from(place: Path) -> Held:
    store = ClipStore(place)
    rows = store.index(split="train")
    config = StreamConfig(batch_size=BATCH_SIZE, clip_seconds=5.0, replay_ratio=0.5, seed=SEED)
    stream = MixedStream(Source(store, rows), Source(store, rows), config)
    with Prefetch(stream.batch, range(200)) as batches:
        _use(batch.waveform for batch in batches)
        return _held()


def _hold_objects(place: Path) -> Held:
    clips = list(ClipStore(place).clips)
    assert clips
    return _held()


def _held() -> Held:
    """What Linux counts for this process."""
    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    status = {words[0]: int(words[1]) / 1024 for words in fields if words[0] in ("RssAnon:", "RssFile:", "VmHWM:")}
    return Held(status["RssAnon:"], status["RssFile:"], status["VmHWM:"])


if __name__ == "__main__":
    main()
