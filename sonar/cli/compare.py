"""`sonar compare`: two models on the same clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from sonar.evaluate.bootstrap import Interval
    from sonar.evaluate.comparison import AxisComparison, Change, Changes

Run = Annotated[Path, typer.Argument(help="Folder of a finished trial, SWEEP/trial-003, or folder of an evaluation.")]
MoreRuns = Annotated[list[Path] | None, typer.Option(help="Further runs of that side under other seeds; repeatable.")]


def register_compare(app: typer.Typer) -> None:
    """Add `sonar compare`."""
    app.command()(compare)


def compare(
    a: Run,
    b: Run,
    seeds_a: MoreRuns = None,
    seeds_b: MoreRuns = None,
    base: Annotated[
        Path | None, typer.Option(help="Of both; default: anchor-base of their sweep. Gives both axes and losses.")
    ] = None,
    worst: Annotated[int, typer.Option(help="Classes to name.")] = 8,
    resamples: Annotated[int, typer.Option(help="Of the recordings and runs.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object: every task and class, nothing left out.")
    ] = False,
) -> None:
    """Differences of two models on the same clips, with intervals; and what each of them forgot of the base."""
    from sonar.evaluate.bootstrap import Resampling
    from sonar.evaluate.comparison import compare_axes, compare_changes
    from sonar.evaluate.pairing import few_recordings
    from sonar.evaluate.run_folders import base_beside, check_same_base, check_seeds, config_difference, read_run

    config = Resampling(num=resamples, seed=seed)
    sides = [[read_run(path) for path in (one, *(more or ()))] for one, more in ((a, seeds_a), (b, seeds_b))]
    for side in sides:
        check_seeds(*side)
    first, second = ([run.evaluation for run in side] for side in sides)
    found: dict[str, Any] = {
        "runs": [[run.name for run in side] for side in sides],
        "config": config_difference(sides[0][0], sides[1][0]),
        "changes": compare_changes(first, second, config),
        "notes": few_recordings(first[0].results),
    }
    base = base or base_beside(*sides[0], *sides[1])
    if base is not None:
        check_same_base(*sides[0], *sides[1])
        old = read_run(base).evaluation
        found["base"] = str(base)
        found["axes"] = compare_axes(first, second, old, config)
        found["since_base"] = [compare_changes([old], side, config) for side in (first, second)]
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=1))
    else:
        _print(found, worst)


def _plain(value: Any) -> Any:
    """Named tuples as mappings, paths as text: what JSON can hold."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _print(found: dict[str, Any], worst: int) -> None:
    for letter, runs in zip("AB", found["runs"], strict=True):
        typer.echo(f"{letter}: {', '.join(runs)}")
    for key, (one, two) in found["config"].items():
        typer.echo(f"  {key}: A {one}, B {two}")
    if "axes" in found:
        _print_axes(found["axes"])
    else:
        typer.echo("no base: give it by --base to see plasticity, forgetting and what was lost of it")
    changes: Changes = found["changes"]
    show_table(_changes_table("score % of the tasks", ("A", "B", "B - A"), changes.tasks))
    most = sorted(changes.classes, key=lambda change: -abs(change.difference))[:worst]
    show_table(_changes_table("score % of the classes that differ most", ("A", "B", "B - A"), most))
    for letter, since in zip("AB", found.get("since_base", ()), strict=False):
        _print_losses(letter, since, worst)
    typer.echo(
        "sure: the 95 % interval excludes 0 and the swap test, Holm-corrected over all rows of its kind, p <= 0.05"
    )
    for note in found["notes"]:
        typer.echo(note)
    if all(len(runs) == 1 for runs in found["runs"]):
        typer.echo("one run a side: intervals are over recordings; what another seed would change is not in them")


def _print_axes(axes: AxisComparison) -> None:
    from rich.table import Table

    table = Table("", *(f"{name} [95 %]" for name in ("A", "B", "B - A")), title="percent of the base's score")
    for axis in (axes.plasticity, axes.forgetting_rate):
        cells = [_with_interval(each.value, each.interval) for each in (axis.first, axis.second, axis.difference)]
        table.add_row(axis.name.replace("_", " "), *cells)
    show_table(table)
    typer.echo(
        f"A dominates B in {axes.dominates.first:.1%} of the resamples, B dominates A in {axes.dominates.second:.1%}"
    )


def _print_losses(letter: str, since: Changes, worst: int) -> None:
    from sonar.evaluate.comparison import lost_most, verdict_of_losses

    heads = ("base", letter, f"{letter} - base")
    show_table(_changes_table(f"base -> {letter}: tasks", heads, since.tasks))
    show_table(_changes_table(f"base -> {letter}: the classes that lost most", heads, lost_most(since.classes, worst)))
    typer.echo(f"base -> {letter}: {verdict_of_losses(since.classes)}")


def _changes_table(title: str, heads: tuple[str, str, str], changes: Sequence[Change]) -> Table:
    from rich.table import Table

    table = Table(
        "task", "class", *heads[:2], f"{heads[2]} [95 %]", "p", "p Holm", "clips", "rec.", "sure", title=title
    )
    for change in changes:
        table.add_row(
            f"{change.task} ({change.role})",
            change.label,
            f"{change.first:.1f}",
            f"{change.second:.1f}",
            _with_interval(change.difference, change.interval),
            f"{change.p_value:.3f}",
            f"{change.p_holm:.3f}",
            str(change.num_clips),
            str(change.num_groups),
            "yes" if change.is_certain else "",
        )
    return table


def _with_interval(value: float, interval: Interval) -> str:
    middle, low, high = (round(each, 1) + 0.0 for each in (value, *interval))  # + 0.0: no -0.0
    return f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
