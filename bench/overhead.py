"""What a trial costs beside its steps: suggest to first step, last step to told; by the journal of a small sweep.

    python bench/overhead.py runs/overhead --trials 8

One worker a trial, as many trials at a time as there are cores, the embedded audio and the small base of
`SMALL_SCALE`, a few steps a stage. The first trial of a core starts a process and imports; the others take that
process over. Evaluation is work that a sweep asks for, not overhead: it has a row of its own.
"""

from __future__ import annotations

import os
import statistics
import time
import uuid
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import torch
import typer

from sonar.cli.app import guarded
from sonar.config import override
from sonar.experiment import SMALL_SCALE
from sonar.search.journal import Event, read_journal
from sonar.search.prepare import Sources, prepare
from sonar.search.run import JOURNAL_FILE, run_sweep
from sonar.search.settings import RunOptions
from sonar.search.space import SONAR_SPACE, Sweep
from sonar.search.trial import run_trial

STEPS = 5
GOAL_S = 3.0
SHORT = {
    "base.pretrain.projection_steps": STEPS,
    "base.pretrain.tokenizer_steps": STEPS,
    "base.pretrain.model_steps": STEPS,
    "training.tokenizer_steps": STEPS,
    "training.model_steps": STEPS,
    "training.predictor_steps": STEPS,
    "training.head_steps": STEPS,
}


class Overhead(NamedTuple):
    """Seconds of one trial beside its steps.

    Attributes:
        to_start: from the suggestion to the start of the trial, a process included.
        to_step: from there to the beginning of its first step: mixture, base, models.
        to_told: from the end of its last step to its result in the journal, without evaluation.
        evaluation: scoring the tasks after the last step.
    """

    to_start: float
    to_step: float
    to_told: float
    evaluation: float

    @property
    def total(self) -> float:
        """All but the evaluation."""
        return self.to_start + self.to_step + self.to_told


def overheads(events: Sequence[Event]) -> list[Overhead]:
    """Of every searched trial that was told, in the order in which they were suggested."""
    found = []
    for trial_id in dict.fromkeys(e.data["trial_id"] for e in events if e.event == "told"):
        own = [event for event in events if event.data.get("trial_id") == trial_id]
        by = {event.event: event for event in own}
        reports = [event for event in own if event.event == "reported"]
        if not reports or by["suggested"].data["kind"] == "anchor":
            continue
        first, told = reports[0], by["told"]
        stage = next(iter(first.data["metrics"])).partition("/")[0]
        began = first.time_s - first.data["metrics"][f"{stage}/step_seconds"]
        evaluation = told.data["metrics"]["evaluation_seconds"]
        found.append(
            Overhead(
                by["started"].time_s - by["suggested"].time_s,
                began - by["started"].time_s,
                told.time_s - reports[-1].time_s - evaluation,
                evaluation,
            )
        )
    return found


def measure(storage: Path, num_trials: int) -> list[Overhead]:
    """Run the sweep, under a name of its own, and read its journal."""
    sweep = Sweep(
        domain="bio",
        name=f"overhead-{uuid.uuid4().hex[:6]}",
        base=override(SMALL_SCALE, SHORT),
        space=SONAR_SPACE,
        objectives={"plasticity": "max", "forgetting_rate": "min"},
        num_trials=num_trials,
        anchors=(),
    )
    options = RunOptions(sources=Sources("bio"), storage=storage, ray="local")
    run_sweep(sweep, options, lambda line: typer.echo(line, err=True), lambda state: None)
    return overheads(read_journal(storage / sweep.name / JOURNAL_FILE))


class ProcessorTime(NamedTuple):
    """Processor seconds of one trial in a process that was there: the same on a busy machine, and no waiting in them.

    Attributes:
        to_step: to the end of the first step, which is in it.
        to_end: from the end of the last step, evaluation and saving in it.
    """

    to_step: float
    to_end: float


def processor_time(storage: Path) -> ProcessorTime:
    """The second of two trials in this process, on what `measure` has prepared, on one thread."""
    torch.set_num_threads(1)
    config = override(SMALL_SCALE, SHORT)
    prepared = prepare(config, Sources("bio"), storage, lambda line: None)
    reports: list[float] = []
    with TemporaryDirectory() as folder:
        for name in ("first", "second"):
            reports.clear()
            began = time.process_time()
            run_trial(config, prepared, Path(folder) / name, lambda step: reports.append(time.process_time()))
            ended = time.process_time()
    return ProcessorTime(reports[0] - began, ended - reports[-1])


def table(measured: Sequence[Overhead], num_cold: int) -> str:
    """Markdown: the worst of the first `num_cold` trials, which start processes; median and extremes of the others."""
    cold, warm = measured[:num_cold], measured[num_cold:]
    lines = [
        f"| seconds | worst of {len(cold)} with a new process | median of {len(warm)} others | lowest | highest |",
        "|---|---|---|---|---|",
    ]
    rows: dict[str, Callable[[Overhead], float]] = {
        "suggest to start": attrgetter("to_start"),
        "start to first step": attrgetter("to_step"),
        "last step to told": attrgetter("to_told"),
        "**overhead**": attrgetter("total"),
        "evaluation": attrgetter("evaluation"),
    }
    for name, of in rows.items():
        values = [of(one) for one in warm]
        numbers = (max(of(one) for one in cold), statistics.median(values), min(values), max(values))
        lines.append(f"| {name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    within = sum(one.total <= GOAL_S for one in warm)
    lines.append(f"\n{within} of {len(warm)} trials in a process that was there keep within {GOAL_S:g} s.")
    return "\n".join(lines)


def main(
    storage: Annotated[Path, typer.Argument(help="Folder for the sweep and what it prepares.")],
    trials: Annotated[int, typer.Option(help="Trials, beside the first one of each core.")] = 8,
) -> None:
    """Measure and print."""
    cores = os.cpu_count() or 1
    typer.echo(table(measure(storage, trials + cores), cores))
    spent = processor_time(storage)
    typer.echo(
        f"Processor time of a trial: {spent.to_step:.2f} s to the end of its first step, {spent.to_end:.2f} s from the "
        "end of its last one, evaluation in it."
    )


if __name__ == "__main__":
    guarded(lambda: typer.run(main))
