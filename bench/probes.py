"""Every probe on one's own labelled audio, with its interval, beside what needs no encoder; and what it costs.

    python bench/probes.py runs/probes --audio BIRDS --audio MUSIC --base CHECKPOINT

A pack is a folder or manifest of audio; its probes are fitted on train and scored on dev. Audio is prepared once in the
storage, and the time counts from there. Intervals are of 95 %, over recordings, or over clips where all are of one
recording. Full fine-tuning (--finetune-lr) takes several times as long as all probes together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
import typer

from sonar.checkpoint import load_checkpoint
from sonar.cli.app import guarded
from sonar.cli.options import Assignments, ConfigFile, Storage, configure
from sonar.data.stream import ClipStore
from sonar.evaluate.bootstrap import score_interval
from sonar.evaluate.features import FeatureCache, Features, LogMelStatistics
from sonar.evaluate.finetune import FinetuneConfig, finetune_task
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.record import TaskResult
from sonar.evaluate.run import Task, labelled_tasks, probe_data, score_probe, splits_for
from sonar.evaluate.scores import chance_score
from sonar.experiment import SMALL_SCALE
from sonar.files import write_whole_text
from sonar.model.encoder import BeatsEncoder
from sonar.provenance import provenance
from sonar.search.prepare import cache_of, load_domain, shard_corpora
from sonar.search.run import ray_session

Result = TypeVar("Result")
SPLIT = "dev"
LOG_MEL, FINE_TUNED = "log-mel statistics", "fine-tuned"
PROBES: dict[str, dict[str, Any]] = {
    "ridge": {"probe": "ridge"},
    "ridge, mean of layers": {"probe": "ridge", "layer": "mean"},
    "ridge, best layer": {"probe": "ridge", "layer": "best"},
    "logistic": {"probe": "logistic"},
    "kNN": {"probe": "knn"},
    "attentive": {"probe": "attentive"},
}


class Cost(NamedTuple):
    """Seconds on the clock, and of processors: the same on a busy machine."""

    clock_s: float
    cpu_s: float


class Cell(NamedTuple):
    """One probe on one pack; what making its features took, and what choosing, fitting and scoring did."""

    result: TaskResult
    features: Cost
    probe: Cost


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder for the table.")],
    audio: Annotated[list[str], typer.Option(help="Folder or manifest of a labelled pack; repeat it for several.")],
    base: Annotated[Path, typer.Option(help="BEATs file or folder of ours.")],
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    storage: Storage = Path("runs"),
    probes: Annotated[str, typer.Option(help="Probes with semicolons between; all of them where not given.")] = "",
    finetune_lr: Annotated[float, typer.Option(help="Also fine-tune, at this rate; 0: no.")] = 0.0,
    threads: Annotated[int, typer.Option(help="Of torch; on a busy machine several wait for each other.")] = 1,
) -> None:
    """Run every probe on every pack and print the tables."""
    torch.set_num_threads(threads)
    config = configure(SMALL_SCALE, config_file, assignments).probe
    tasks = _tasks(audio, storage)
    encoder = load_checkpoint(base).encoder
    names = [name.strip() for name in probes.split(";")] if probes else list(PROBES)
    if unknown := set(names) - set(PROBES):
        raise ValueError(f"no probe is called {', '.join(sorted(unknown))}; there are {'; '.join(PROBES)}")
    cells: dict[tuple[str, str], Cell] = {}
    with TemporaryDirectory() as folder_of_cache:
        cache, log_mel = FeatureCache(encoder, Path(folder_of_cache)), LogMelStatistics(encoder.config.fbank)
        for task in tasks:
            cells[task.name, LOG_MEL] = _timed(task, log_mel, config)
            for name in names:
                cells[task.name, name] = _timed(task, cache, replace(config, **PROBES[name]))
            if finetune_lr:
                tuning = FinetuneConfig(lrs=(finetune_lr,), clip_seconds=config.clip_seconds)
                cells[task.name, FINE_TUNED] = _finetuned(task, encoder, tuning)
            found = {name: cell.result.score.score for (pack, name), cell in cells.items() if pack == task.name}
            typer.echo(f"{task.name}: " + ", ".join(f"{name} {score:.1f}" for name, score in found.items()))
    columns = list(dict.fromkeys(name for _, name in cells))
    text = "\n".join([*_scores([task.name for task in tasks], columns, cells), "", *_seconds(columns, cells)])
    made_by = provenance()
    typer.echo(f"\n{text}\n\ncommit {made_by['commit']}{' (changed)' if made_by['dirty'] else ''}, {threads} threads")
    write_whole_text(folder / "probes.md", text + "\n")
    write_whole_text(folder / "provenance.json", json.dumps(made_by, indent=1))


def _tasks(audio: Sequence[str], storage: Path) -> list[Task]:
    cache = cache_of(storage)
    with ray_session("local"):
        clips = [load_domain(Path(path).name, path, cache, typer.echo) for path in audio]
        shards = shard_corpora(clips, cache, typer.echo)
    return [task for folder in shards for task in labelled_tasks(ClipStore(folder), "control")]


def _timed(task: Task, features: Features, config: ProbeConfig) -> Cell:
    data, made = _cost_of(lambda: probe_data(features, task, splits_for(SPLIT), config))
    result, probed = _cost_of(lambda: score_probe(task, data, config, SPLIT))
    return Cell(result, made, probed)


def _finetuned(task: Task, encoder: BeatsEncoder, config: FinetuneConfig) -> Cell:
    result, cost = _cost_of(lambda: finetune_task(encoder, task, config, SPLIT))
    return Cell(result, Cost(0.0, 0.0), cost)


def _cost_of(work: Callable[[], Result]) -> tuple[Result, Cost]:
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Cost(time.perf_counter() - began, time.process_time() - cpu)


def _scores(packs: Sequence[str], names: Sequence[str], cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    """Rows of Markdown: percent."""
    yield f"| pack | metric | classes | clips | recordings | chance | {' | '.join(names)} |"
    yield "|---" * (len(names) + 6) + "|"
    for pack in packs:
        result = cells[pack, names[0]].result
        said = result.predictions
        facts = [pack, result.metric, len(said.classes), len(said.truth), len(set(said.groups))]
        chance = f"{chance_score(said, result.metric):.1f}"
        scored = [_with_interval(cells[pack, name].result) for name in names]
        yield f"| {' | '.join(map(str, [*facts, chance, *scored]))} |"


def _with_interval(result: TaskResult) -> str:
    interval = score_interval(result.predictions, result.metric).interval
    over = "" if len(set(result.predictions.groups)) > 1 else " over clips"
    return f"{result.score.score:.1f} [{interval.low:.1f}, {interval.high:.1f}]{over}"


def _seconds(names: Sequence[str], cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    """Rows of Markdown: seconds of all packs; a probe that reads what an earlier one has cached makes no features."""
    yield "| all packs, seconds | features | of processors | probe | of processors |"
    yield "|---" * 5 + "|"
    for name in names:
        of_all = [cell for (_, kind), cell in cells.items() if kind == name]
        costs = [seconds for cell in of_all for seconds in (*cell.features, *cell.probe)]
        yield f"| {name} | {' | '.join(f'{sum(costs[i::4]):.1f}' for i in range(4))} |"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(bench)
    guarded(app)
