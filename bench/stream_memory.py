"""How much memory a worker that streams holds for many clips: `python bench/stream_memory.py`. Prints Markdown."""

from __future__ import annotations

import logging
import multiprocessing
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch
from harness import describe, machine, table

from sonar.data.corpora import load_corpus
from sonar.data.prefetch import Prefetch
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_parts import INDEX_SCHEMA
from sonar.data.shard_summary import INDEX_FILE, LeftOut, write_summary
from sonar.data.shards import write_shards
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig
from sonar.data.synth import write_synth_corpus

BATCH_SIZE = 32
SEED = 0


class Held(NamedTuple):
    """Memory of a process, MB: its own, pages of mapped files, and the most of both together."""

    own: float
    mapped: float
    peak: float


def main() -> None:
    """Measure and print."""
    made_by = machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        audio = write_synth_corpus("bio", folder / "audio", seed=SEED)
        start_ray(1)
        write_shards(load_corpus(audio, domain="bench").clips, folder / "shards")
        ray.shutdown()
        rows = []
        for name, shards, how in (
            ("nothing (imports)", folder / "shards", _import_only),
            ("its own clips", folder / "shards", _stream_from),
            ("100 k clips", _many(folder, 100_000), _stream_from),
            ("1 M clips", _many(folder, 1_000_000), _stream_from),
            ("1 M clips as Python objects", _many(folder, 1_000_000), _hold_objects),
        ):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                held: Held = pool.apply(how, (shards,))
            rows.append([name, *(f"{megabytes:.0f}" for megabytes in held)])
    header = ["a worker that streams from", "own memory, MB", "mapped file pages, MB", "peak of both, MB"]
    print("\n".join([*table(header, rows), describe(made_by)]))


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
        use(batch.waveform for batch in batches)
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


def start_ray(num_cpus: int) -> None:
    """A local Ray that says nothing."""
    ray.init("local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def use(batches: Iterable[torch.Tensor]) -> None:
    """Look at every batch, as a training step would."""
    for waveform in batches:
        assert waveform[:, 0].isfinite().all()


if __name__ == "__main__":
    main()
