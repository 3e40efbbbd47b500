"""How much of a trial the work saves that a sweep does once: every piece by itself, and the trial with all of them.

    python bench/shared_work.py                                    # the embedded corpora, at the sizes of --smoke
    python bench/shared_work.py --data DIR --prior DIR             # one's own audio
    python bench/shared_work.py --data DIR --prior DIR --base FOLDER --small --storage runs    # an existing base
    python bench/shared_work.py --runs 3 --set training.model_steps=200

`--small`: at the sizes of `SMALL_SCALE`. `--storage`: where what is prepared lies and is found again.
A trial without shared work would do all the pieces by itself. Times are of one process beside whatever else the machine
does; the pieces and the trials are measured in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sonar.checkpoint import load_checkpoint
from sonar.cli.options import SMOKE
from sonar.config import override, parse_assignment
from sonar.data.stream import ClipStore
from sonar.evaluate.run import evaluate_encoder, find_tasks
from sonar.experiment import SMALL_SCALE, TrialConfig
from sonar.search.base_codes import keep_base_codes
from sonar.search.embeddings import write_embeddings
from sonar.search.prepare import Prepared, Sources, prepare
from sonar.search.ranking import keep_ranking
from sonar.search.run import ray_session
from sonar.search.trial import run_trial
from sonar.train.stages import local_worker


def main() -> None:
    """Parse, prepare once, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", default="bio")
    parser.add_argument("--data")
    parser.add_argument("--prior", action="append", default=[])
    parser.add_argument("--base")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    given = parser.parse_args()
    torch.set_num_threads(1)  # as a trial among others
    config = SMALL_SCALE if given.small else override(TrialConfig(), SMOKE)
    config = override(config, {"base.checkpoint": given.base} | dict(map(parse_assignment, given.assignments)))
    with tempfile.TemporaryDirectory() as folder, ray_session("local"):
        sources = Sources(given.domain, given.data, tuple(given.prior))
        began = time.perf_counter()
        prepared = prepare(config, sources, given.storage or Path(folder), print)
        print(f"prepared in {time.perf_counter() - began:.1f} s, base and shards included")
        rounds = [measure(config, prepared, Path(folder) / f"round-{number}") for number in range(given.runs)]
    report({name: [seconds[name] for seconds in rounds] for name in rounds[0]})


def measure(config: TrialConfig, prepared: Prepared, folder: Path) -> dict[str, float]:
    """Seconds of every piece of shared work, made anew in a folder, and of a trial that has them all."""
    base, seconds = Path(prepared.base), config.training.clip_seconds
    shards = Path(prepared.new_shards), Path(prepared.prior_shards)
    stores = ClipStore(shards[0]), ClipStore(shards[1])
    folder.mkdir()
    embeddings = folder / "embeddings"
    encoder = load_checkpoint(base).encoder.to(local_worker().device)
    pieces: dict[str, Callable[[], object]] = {
        "base embeddings of TRSS": lambda: write_embeddings(embeddings, base, shards, seconds),
        "base codes": lambda: keep_base_codes(embeddings, base, shards[1], seconds),
        "ranking of replay": lambda: keep_ranking(embeddings, stores, config.sampling),
        "base probes": lambda: evaluate_encoder(encoder, find_tasks(*stores), config.probe),
        "trial": lambda: run_trial(config, prepared, folder / "trial", lambda step: None),
    }
    return {name: _seconds(piece) for name, piece in pieces.items()}


def report(seconds: dict[str, list[float]]) -> None:
    """A line per piece: median, all runs, and its share of a trial that would do everything by itself."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    alone = sum(medians.values())
    for name, values in seconds.items():
        shown = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:24} {medians[name]:8.2f} s  {100 * medians[name] / alone:5.1f} %  ({shown})")
    saved = alone - medians["trial"]
    print(
        f"a trial without sharing takes {alone:.2f} s; sharing saves {saved:.2f} s, {100 * saved / alone:.0f} % of it"
    )


def _seconds(piece: Callable[[], object]) -> float:
    began = time.perf_counter()
    piece()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
