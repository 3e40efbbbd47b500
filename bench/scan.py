"""Scanning against the decoder's own speed: `python bench/scan.py --audio FOLDER`.

Asks: what do hash, checks, limits, progress and record of `sonar data scan` cost over the decoder alone? That is a
plain loop of `soundfile.read` and sha256 in a `multiprocessing.Pool` of the same number of processes, which keeps
nothing, refuses nothing, and dies with its decoder. Both start their processes (the pool forks, the scan spawns), both
do all files, in turns; then a second scan over the record of the first. Processor time, of all processes, tells more
than the clock where others use the machine. Without a folder, files are made. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from sonar.data.listing import AUDIO_SUFFIXES
from sonar.data.scan import ScanOptions, ScanProgress, check_files
from sonar.data.storage import as_root, list_files
from sonar.provenance import provenance

SECONDS, SAMPLE_RATE = 5, 44_100  # of the files that are made: half of them WAV, half FLAC


class Way(NamedTuple):
    """One way through all files, and what each round took: seconds by the clock, and of processors."""

    name: str
    run: Callable[[], None]
    seconds: list[float]
    cpu_seconds: list[float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, default=None, help="folder with audio at any depth")
    parser.add_argument("--files", type=int, default=1_000, help="files to make where no folder is given")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="of either way")
    parser.add_argument("--rounds", type=int, default=7, help="of each way, in turns")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = as_root(options.audio or _write_files(Path(folder) / "audio", options.files))
        files = [file for file in list_files(root) if Path(file).suffix.lower() in AUDIO_SUFFIXES]
        ways = _ways(root, files, Path(folder), options.processes)
        for _ in range(options.rounds):
            for way in ways:
                began, before = time.perf_counter(), _cpu_seconds()
                way.run()
                way.seconds.append(time.perf_counter() - began)
                way.cpu_seconds.append(_cpu_seconds() - before)
        _print(ways, [os.path.join(root, file) for file in files], options.processes)


def _write_files(root: Path, count: int) -> Path:
    root.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).standard_normal(SECONDS * SAMPLE_RATE) / 10
        soundfile.write(root / f"{number:06d}.{('wav', 'flac')[number % 2]}", noise, SAMPLE_RATE)
    return root


def _ways(root: str, files: Sequence[str], folder: Path, processes: int) -> list[Way]:
    """The decoder, a first scan, and a scan of what has not changed: its record is the one of the scan before."""
    record = folder / "record.jsonl"
    paths = [os.path.join(root, file) for file in files]

    def scan(*, num_read: int) -> None:
        last: list[ScanProgress] = []
        check_files(root, files, ScanOptions(record=record, report=last.append, workers=processes))
        assert last[-1].read == num_read, last[-1]

    def first_scan() -> None:
        record.unlink(missing_ok=True)
        scan(num_read=len(files))

    def decode_all() -> None:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            assert len(pool.map(_decode, paths, chunksize=16)) == len(paths)

    ways = [("decoder alone", decode_all), ("scan", first_scan), ("rescan, no change", lambda: scan(num_read=0))]
    return [Way(name, run, [], []) for name, run in ways]


def _decode(path: str) -> tuple[str, int]:
    content = Path(path).read_bytes()
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    return hashlib.sha256(content).hexdigest(), len(samples)


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _print(ways: Sequence[Way], files: Sequence[str], processes: int) -> None:
    megabytes = sum(map(os.path.getsize, files)) / 2**20
    made_by = provenance()
    print(
        f"`python bench/scan.py {' '.join(sys.argv[1:])}`, commit {made_by['commit']}"
        f"{' (changed)' if made_by['dirty'] else ''}, {time.strftime('%Y-%m-%d')}."
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, {processes} processes, Python {platform.python_version()}, ")
    print(f"soundfile {soundfile.__version__}; {len(files)} files, {megabytes:.0f} MB, in the page cache.")
    print("Medians (least to most).\n")
    print("| way | seconds | processor seconds | files/s | MB/s | speed over the decoder's | by processor time |")
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        middle = statistics.median(way.seconds)
        cells = [
            way.name,
            _spread(way.seconds),
            _spread(way.cpu_seconds),
            f"{len(files) / middle:.0f}",
            f"{megabytes / middle:.0f}",
            _spread(_ratios(ways[0].seconds, way.seconds)),
            _spread(_ratios(ways[0].cpu_seconds, way.cpu_seconds)),
        ]
        print(f"| {' | '.join(cells)} |")


def _ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(first, second, strict=True)]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
