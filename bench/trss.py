"""Time and memory of retrieval on a large prior corpus: `python bench/trss.py --clips 200000`.

Asks: does TRSS fit a node where the prior corpus has 2 M clips? Unit vectors of 768 and counts of 1024 codes lie in
memory-mapped files; 20k queries are drawn against them, by nearest neighbours and by importance. Time grows with the
number of clips; memory must not, but for a few bytes per clip. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.data.importance import gumbel_top, importance_scores
from sonar.data.retrieval import blocks, nearest_in_turns, unit_rows
from sonar.provenance import provenance

WIDTH, NUM_CODES, PATCHES = 768, 1024, 496
FULL_CLIPS = 2_000_000
REPLAY_PER_QUERY = 1  # replay ratio 0.5


class Measured(NamedTuple):
    """One way of retrieval."""

    name: str
    seconds: float
    peak_mb: float  # resident set of the process so far
    mapped_mb: float  # of it, pages of files, which the system takes back when it needs them
    num_clips: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200_000, help="prior clips")
    parser.add_argument("--queries", type=int, default=20_000, help="new clips")
    parser.add_argument("--folder", type=Path, default=None, help="for the files; needs 5 KB for a clip")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        prior, counts = _write_files(Path(folder), options.clips)
        start_mb = _peak_mb()
        rng = np.random.default_rng(1)
        queries = unit_rows(rng.standard_normal((options.queries, WIDTH), dtype=np.float32))
        budget = min(options.clips, REPLAY_PER_QUERY * options.queries)
        new_counts = counts[: options.queries]
        results = [
            _measure("dsir", lambda: gumbel_top(importance_scores(new_counts, counts), budget, rng), options.clips),
            _measure("knn", lambda: nearest_in_turns(queries, prior, budget).rows, options.clips),
        ]
    _print(results, start_mb, sys.argv[1:])


def _write_files(folder: Path, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory-mapped (P, D) float32 vectors around 500 centres, and (P, K) uint16 counts, written block by block."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((500, WIDTH), dtype=np.float32)
    shares = rng.dirichlet(np.full(NUM_CODES, 0.1), 500)
    shapes = (("embeddings", np.float32, WIDTH), ("code_counts", np.uint16, NUM_CODES))
    files = [
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=(num_clips, width))
        for name, kind, width in shapes
    ]
    for block in blocks(num_clips):
        centre = rng.integers(0, 500, block.stop - block.start)
        files[0][block] = unit_rows(centres[centre] + rng.standard_normal((len(centre), WIDTH), dtype=np.float32))
        files[1][block] = rng.multinomial(PATCHES, shares[centre])
    del files  # flushed
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name, _, _ in shapes)


def _measure(name: str, retrieve: Callable[[], np.ndarray], num_clips: int) -> Measured:
    began = time.perf_counter()
    rows = retrieve()
    seconds = time.perf_counter() - began
    assert len(np.unique(rows)) == len(rows)
    return Measured(name, seconds, _peak_mb(), _mapped_mb(), num_clips)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _mapped_mb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssFile")) / 1024


def _print(results: list[Measured], start_mb: float, arguments: list[str]) -> None:
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(
        f"`python bench/trss.py {' '.join(arguments)}`, commit {provenance()['commit']}, {time.strftime('%Y-%m-%d')}."
    )
    print(f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}, numpy {np.__version__}, ")
    print(f"Python {platform.python_version()}; {start_mb:.0f} MB resident before.\n")
    print("| retrieval | prior clips | seconds | peak resident, MB | of it file pages, MB | 2 M clips, minutes |")
    print("|---|---|---|---|---|---|")
    for name, seconds, peak_mb, mapped_mb, num_clips in results:
        minutes = seconds * FULL_CLIPS / num_clips / 60
        print(f"| {name} | {num_clips} | {seconds:.1f} | {peak_mb:.0f} | {mapped_mb:.0f} | {minutes:.1f} |")


if __name__ == "__main__":
    main()
