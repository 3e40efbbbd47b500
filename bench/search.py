"""Front found per compute, against search without early stopping: `python bench/search.py FOLDER`.

On a simulated surface whose front is known (bench/surface.py), with noise and a stability gap. Asks: how many training
steps does a sweep of ours (TrialSource, its anchors among the cost; as it is by default, and with FrontHalving) need to
reach the hypervolume that others reach? The others are what Ray Tune with OptunaSearch does: the same Optuna sampler,
or its default one, or random search, every trial run to its end and told with what was measured. Their loop is run on
Optuna itself, since the overhead of Tune is not what is measured. All have the same space, budget, workers and
surfaces. A trial that was measured by luck helps none: hypervolume is that of the true values of the finished trials.
Prints Markdown.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import optuna
import typer
from simulation import Run, Search, Setting, simulate
from surface import F1, Surface, true_hypervolume
from ways import ENDLESS, Ours, PlainOptuna

from sonar.cli.app import guarded
from sonar.config import override, to_dict
from sonar.experiment import SMALL_SCALE
from sonar.files import write_whole_text
from sonar.provenance import provenance
from sonar.search.halving import HalvingConfig
from sonar.search.journal import Journal
from sonar.search.samplers import make_sampler
from sonar.search.space import SONAR_SPACE, Sweep


def simulated_sweep(setting: Setting) -> Sweep:
    """What is asked of the surface."""
    return Sweep(
        domain="simulated",
        base=override(SMALL_SCALE, {"evaluation.every": setting.every}),
        space=SONAR_SPACE,
        objectives={"plasticity": "max", "forgetting_rate": "min"},
        num_trials=ENDLESS,
        forgetting_limit=F1 + 10 if setting.limit is None else setting.limit,
    )


NAIVE = HalvingConfig(grace_points=1, smoothing_points=1, least_gap=1e6, margin=1e6)
DEFAULT, HALVED, HASTY = "ours", "ours, halving", "ours, halving without a grace"
ANYTIME = "ours, halving, with the anytime front"
SAME, STOCK, RANDOM = "Tune + OptunaSearch, our sampler", "Tune + OptunaSearch, its default", "random search"
WATCHED = (HALVED, HASTY)  # pay for points on the way
OTHERS = (DEFAULT, SAME, STOCK, RANDOM)

Make = Callable[[Journal, int, Setting], Search]
WAYS: dict[str, Make] = {
    HALVED: lambda journal, seed, setting: Ours(journal, simulated_sweep(setting), seed, HalvingConfig()),
    HASTY: lambda journal, seed, setting: Ours(journal, simulated_sweep(setting), seed, NAIVE),
    DEFAULT: lambda journal, seed, setting: Ours(journal, simulated_sweep(setting), seed, None),
    SAME: lambda journal, seed, setting: PlainOptuna(make_sampler("tpe", seed)),
    STOCK: lambda journal, seed, setting: PlainOptuna(optuna.samplers.TPESampler(seed=seed)),
    RANDOM: lambda journal, seed, setting: PlainOptuna(make_sampler("random", seed)),
}
QUESTIONS = {  # what counts, and what a trial costs
    "forgetting at most 5 %": Setting(limit=5.0),
    "the whole front": Setting(),
    "at most 5 %, costs of a trial on two cores": Setting(limit=5.0, every=15, before=60, point_cost=13.0),
}


def run_seed(seed: int, setting: Setting) -> dict[str, Run]:
    """Every way on one surface; the sampler has the seed of the surface."""
    runs = {}
    for name, make in WAYS.items():
        clock = partial(next, itertools.count(0.0))  # the order of events must not hang on the time of day
        with (
            tempfile.TemporaryDirectory() as folder,
            Journal(Path(folder) / "journal.jsonl", clock=clock) as journal,
        ):
            runs[name] = simulate(make(journal, seed, setting), Surface(seed), setting, watched=name in WATCHED)
    runs[ANYTIME] = runs[HALVED]._replace(reached=runs[HALVED].anytime)
    return runs


def after(run: Run, compute: float) -> float:
    """Hypervolume when so much was spent."""
    return [reached.hypervolume for reached in run.reached if reached.compute <= compute][-1]


def compute_to(run: Run, target: float) -> float:
    """What was spent when the hypervolume was first reached; infinity: it never was."""
    return next((reached.compute for reached in run.reached if reached.hypervolume >= target), math.inf)


def ratios(runs: Sequence[dict[str, Run]], other: str, mine: str) -> list[float]:
    """By seed: what `other` spent on the best it came to, over what `mine` spent on as much; 0: it never came to it.

    Where the other came to nothing, it is all that it spent over what `mine` spent on its first: a lower bound.
    """
    found = []
    for by_way in runs:
        last = by_way[other].reached[-1]
        target = max(last.hypervolume, math.ulp(0.0))
        found.append(min(compute_to(by_way[other], target), last.compute) / compute_to(by_way[mine], target))
    return found


def table(runs: Sequence[dict[str, Run]], setting: Setting) -> Iterator[str]:
    """Markdown: median, quartiles over the surfaces."""
    true = true_hypervolume(setting.reference)
    parts = [setting.budget / 4, setting.budget / 2, setting.budget]
    yield "| search | " + " | ".join(f"HV after {part:g} trials, %" for part in parts) + " | told | stopped |"
    yield "|---" * (len(parts) + 3) + "|"
    for name in (HALVED, ANYTIME, HASTY, *OTHERS):
        shares = [[100 * after(by_way[name], part) / true for by_way in runs] for part in parts]
        counts = [statistics.mean(getattr(by_way[name], count) for by_way in runs) for count in Run._fields[2:]]
        cells = [_spread(share, ".0f") for share in shares] + [f"{count:.0f}" for count in counts]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    mine = (DEFAULT, HALVED, ANYTIME)
    yield f"| compute of the other / of ours to the same HV | {' | '.join(mine)} |"
    yield "|---" * (len(mine) + 1) + "|"
    for other in OTHERS:
        cells = ["-" if other == way else _ratio(ratios(runs, other, way)) for way in mine]
        yield f"| {other} | {' | '.join(cells)} |"


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _ratio(values: Sequence[float]) -> str:
    missed = sum(value == 0 for value in values)
    return _spread(values, ".1f") + (f", not reached on {missed} of {len(values)}" if missed else "")


def bench(
    out: Annotated[Path, typer.Argument(help="Folder for table.md and search.json.")],
    seeds: Annotated[int, typer.Option(min=2, help="Surfaces.")] = 10,
    first: Annotated[int, typer.Option(help="First of them; HalvingConfig was chosen on 1000 to 1005.")] = 0,
    question: Annotated[int | None, typer.Option(min=0, max=len(QUESTIONS) - 1, help="One of them only.")] = None,
) -> None:
    """Run every way on every surface, print the tables, and write them with what made them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    chosen = list(QUESTIONS.items())
    lines, results = [], {}
    for name, setting in chosen if question is None else [chosen[question]]:
        runs = []
        for seed in range(first, first + seeds):
            runs.append(run_seed(seed, setting))
            typer.echo(f"{name}: surface {seed}", err=True)
        lines += [f"### {name}", "", *table(runs, setting), ""]
        results[name] = {
            "setting": asdict(setting),
            "true_hypervolume": true_hypervolume(setting.reference),
            "runs": [{way: run._asdict() for way, run in by_way.items()} for by_way in runs],
        }
    made_by = provenance()
    lines.append(f"{seeds} surfaces from {first} on; commit {made_by['commit']}, {HalvingConfig()}")
    typer.echo("\n".join(lines))
    record = {"made_by": made_by, "halving": to_dict(HalvingConfig()), "questions": results}
    write_whole_text(out / "table.md", "\n".join(lines) + "\n")
    write_whole_text(out / "search.json", json.dumps(record))


if __name__ == "__main__":
    guarded(lambda: typer.run(bench))
