"""`sonar front reeval`: does the front hold under other seeds?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sonar.cli.options import SweepFolder
from sonar.cli.sweep.resume import enter_working_folder
from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from sonar.search.reevaluation import Standing


def register_reeval(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(reeval)


def reeval(
    folder: SweepFolder,
    seeds: Annotated[int, typer.Option(help="Repeats of a trial at most.")] = 5,
    confidence: Annotated[float, typer.Option(help="At which a pair of candidates is settled.")] = 0.95,
    budget_hours: Annotated[float | None, typer.Option(help="Launch no repeat after this many hours.")] = None,
    resamples: Annotated[int, typer.Option(help="Of the recordings.")] = 2000,
    ray_address: Annotated[str | None, typer.Option("--ray", help="As of a sweep; default: as it was run.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Repeats at a time; default: as in the sweep.")] = None,
) -> None:
    """Run the front and what is within 2 sigma of it under other seeds, until who dominates whom is settled."""
    from sonar.evaluate.bootstrap import Resampling
    from sonar.search.reevaluation import ReevalConfig
    from sonar.search.rerun import reevaluate
    from sonar.search.run import read_sweep
    from sonar.search.settings import options_of

    resampling = Resampling(num=resamples)
    config = ReevalConfig(seeds=seeds, confidence=confidence, budget_hours=budget_hours, resampling=resampling)
    folder = folder.resolve()
    settings = read_sweep(folder).settings
    options = options_of(settings, folder)
    options = replace(options, ray=ray_address or options.ray, max_concurrent=concurrent or options.max_concurrent)
    enter_working_folder(settings["options"]["working_folder"])
    outcome = reevaluate(folder, config, options, typer.echo)
    print_standings(outcome.standings)
    typer.echo(f"{outcome.num_settled} of {outcome.num_pairs} pairs settled: {outcome.end_reason}")


def print_standings(standings: list[Standing]) -> None:
    """A table of means over seeds, and the failed seeds below it."""
    from rich.table import Table

    from sonar.search.candidates import describe_key

    table = Table(title="means over seeds, with 95 % intervals over seeds and recordings")
    for heading in (
        "candidate",
        "seeds",
        "plasticity %",
        "forgetting %",
        "closest rival",
        "P(dominates)",
        "P(dominated)",
    ):
        table.add_column(heading, justify="left" if heading in ("candidate", "closest rival") else "right")
    for standing in standings:
        probable = standing.dominates
        table.add_row(
            describe_key(standing.key),
            _count(standing),
            *(_estimate(standing, axis) for axis in (0, 1)),
            "" if standing.rival is None else describe_key(standing.rival),
            *(("?", "?") if probable is None else (f"{value:.3f}" for value in probable)),
        )
    show_table(table)
    failed = {name: reason for standing in standings for name, reason in standing.runs.failed.items()}
    for name, reason in failed.items():
        typer.echo(f"{name} failed, is in no mean, and counts as a run that dominates nothing: {reason}")


def _count(standing: Standing) -> str:
    runs = standing.runs
    count = "own run only" if runs.is_own else str(len(runs.found))
    return f"{count}, {len(runs.failed)} failed" if runs.failed else count


def _estimate(standing: Standing, axis: int) -> str:
    mean = f"{standing.mean[axis]:+.1f}"
    if standing.intervals is None:
        return mean
    low, high = standing.intervals[axis]
    return f"{mean} [{low:+.1f}, {high:+.1f}]"
