"""How long the command line takes to answer, and where the time of a short trial goes.

    python bench/startup.py runs/bench [--full]

The commands take turns with a bare `python -c pass`, each in a process of its own. The trial, with `--full`, is what
`sonar adapt` does on the embedded audio at `SMALL_SCALE` with few steps, in this process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from harness import Section, main, spread, table, take_turns

from sonar.config import override
from sonar.experiment import SMALL_SCALE, TrialConfig
from sonar.search.prepare import Sources, prepare
from sonar.search.run import ray_session
from sonar.search.trial import run_trial
from sonar.train.loop import StepReport

ROOT = Path(__file__).resolve().parents[1]
BARE, IMPORT, HELP = "`python -c pass`", "`import sonar`", "`sonar --help`"
TRIAL_IMPORTS = "imports of a trial"
CLI = "from sonar.cli import cli; cli()"
COMMANDS: dict[str, tuple[str, ...]] = {
    BARE: ("-c", "pass"),
    IMPORT: ("-c", "import sonar"),
    HELP: ("-c", CLI, "--help"),
    "`sonar adapt --help`": ("-c", CLI, "adapt", "--help"),
    "`sonar sweep run --help`": ("-c", CLI, "sweep", "run", "--help"),
    "`sonar sweep run sweeps/bio.py --help`": ("-c", CLI, "sweep", "run", "sweeps/bio.py", "--help"),
    TRIAL_IMPORTS: ("-c", "import sonar.search.prepare, sonar.search.run, sonar.search.trial"),
}
GOALS_S = {IMPORT: 0.3, HELP: 0.7}
SHORT_BASE = {f"base.pretrain.{stage}_steps": 5 for stage in ("projection", "tokenizer", "model")}
SHORT_TRIAL = {"training.tokenizer_steps": 5, "training.predictor_steps": 3, "training.model_steps": 10}


class Commands(NamedTuple):
    """Seconds of every command in turns: by the clock, and of a processor (the same on a busy machine)."""

    seconds: dict[str, list[float]]
    processor: dict[str, list[float]]


class Part(NamedTuple):
    """A part of a trial, and the seconds that it took."""

    name: str
    seconds: float


def section(full: bool) -> Section:
    """The commands; with `full` a short trial too."""
    commands = measure_commands(rounds=15 if full else 3)
    lines, record = _command_lines(commands), dict[str, Any](commands._asdict())
    if full:
        more, parts = _trial_section(commands)
        lines, record = lines + more, record | parts
    return Section("Start-up and a short trial", lines, record)


def _trial_section(commands: Commands) -> tuple[list[str], dict[str, Any]]:
    """Where the time of a short trial goes."""
    config = override(SMALL_SCALE, SHORT_BASE | SHORT_TRIAL)
    imports = Part("start of a process, and its imports", statistics.median(commands.seconds[TRIAL_IMPORTS]))
    with TemporaryDirectory() as storage:
        once, trial = measure_trial(config, Path(storage))
    trial = [imports, *trial]
    largest = max(trial, key=lambda part: part.seconds)
    lines = [
        "Once per storage, for all trials:",
        "",
        *_part_lines(once),
        "A trial:",
        "",
        *_part_lines(trial),
        f"Its largest part: {largest.name}.",
    ]
    return lines, _as_numbers(once=once, trial=trial)


def measure_commands(rounds: int) -> Commands:
    """Every command so many times, each in a process of its own."""
    processor: dict[str, list[float]] = {name: [] for name in COMMANDS}

    def way(name: str) -> Callable[[], None]:
        def run() -> None:
            before = _childrens_seconds()
            subprocess.run([sys.executable, *COMMANDS[name]], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            processor[name].append(_childrens_seconds() - before)

        return run

    return Commands(take_turns({name: way(name) for name in COMMANDS}, rounds, warmups=0), processor)


def _childrens_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure_trial(config: TrialConfig, storage: Path) -> tuple[list[Part], list[Part]]:
    """The parts of what is done once per storage, and those of a trial that finds it there."""
    sources, clock = Sources("bio"), Clock()
    once = []
    with ray_session("local"):
        once.append(clock.part("Ray starts"))
        prepare(config, sources, storage, _say)
        once.append(clock.part("scan, shards, base, its scores, embeddings"))
        prepared = prepare(config, sources, storage, _say)
        found = clock.part("preparation, found in the cache")
        steps: list[tuple[float, StepReport]] = []
        result = run_trial(config, prepared, storage / "trial", lambda step: steps.append((time.perf_counter(), step)))
        whole = clock.part("trial")
    return once, [found, *_trial_parts(clock.last - whole.seconds, clock.last, steps, result.metrics)]


class Clock:
    """Seconds since it was asked before."""

    def __init__(self) -> None:
        """Begin now."""
        self.last = time.perf_counter()

    def part(self, name: str) -> Part:
        """What has passed, under a name."""
        before, self.last = self.last, time.perf_counter()
        return Part(name, self.last - before)


def _trial_parts(
    began: float, ended: float, steps: list[tuple[float, StepReport]], metrics: dict[str, float]
) -> list[Part]:
    """From the times at which the steps were reported: a step's own seconds, and what lies between."""
    first_began = steps[0][0] - steps[0][1].metrics["step_seconds"]
    parts = [Part("mixture, base, models", first_began - began)]
    before = first_began
    for stage in dict.fromkeys(step.stage for _, step in steps):
        own = [(at, step) for at, step in steps if step.stage == stage]
        first, last = own[0][0], own[-1][0]
        parts.append(Part(f"{stage} stage: to the end of its first step", first - before))
        parts.append(Part(f"{stage} stage: {len(own) - 1} steps more", last - first))
        before = last
    evaluation = metrics["evaluation_seconds"]
    return [*parts, Part("evaluation", evaluation), Part("saving, and the rest", ended - before - evaluation)]


def _command_lines(commands: Commands) -> list[str]:
    rows = []
    for name, seconds in commands.seconds.items():
        above = statistics.median(own - bare for own, bare in zip(seconds, commands.seconds[BARE], strict=True))
        goal = GOALS_S.get(name)
        met = "" if goal is None else f"{goal} s: {'met' if statistics.median(seconds) <= goal else 'missed'}"
        rows.append([name, spread(seconds), f"{above:.3g}", f"{statistics.median(commands.processor[name]):.2f}", met])
    return table(["command", "s", "s above bare Python", "processor s", "goal"], rows)


def _part_lines(parts: list[Part]) -> list[str]:
    total = sum(part.seconds for part in parts)
    rows = [[part.name, f"{part.seconds:.2f}", f"{part.seconds / total:.0%}"] for part in parts]
    return table(["part", "s", "share"], [*rows, ["all", f"{total:.2f}", ""]])


def _as_numbers(**parts: list[Part]) -> dict[str, Any]:
    return {name: {part.name: part.seconds for part in found} for name, found in parts.items()}


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main(section, "startup")
