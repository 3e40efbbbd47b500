"""`sonar front show`."""

from __future__ import annotations

from typing import Annotated

import typer

from sonar.cli.front.tables import plain, print_table
from sonar.cli.options import SweepFolder


def register_show(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(show)


def show(
    folder: SweepFolder,
    as_json: Annotated[bool, typer.Option("--json", help="The front as JSON on standard output.")] = False,
) -> None:
    """The candidates that no other one beats on both axes: trials at their end, on the way, between base and end."""
    import json

    from sonar.search.repeats import is_repeated, runs_of
    from sonar.search.results import front, picked
    from sonar.search.run import read_sweep

    state = read_sweep(folder)
    chosen = picked(state)
    if as_json:
        rows = [plain(ranked) | {"pick": ranked.candidate.key == chosen} for ranked in front(state)]
        typer.echo(json.dumps(rows, indent=1))
    else:
        members = front(state)
        print_table("front", members, chosen)
        names = {ranked.candidate.key: ranked.point.name for ranked in members}
        runs = runs_of(state, names)
        counts = [f"{names[key]} {len(found.found)}" for key, found in runs.items() if not found.is_own]
        if is_repeated(state) and counts:
            typer.echo(f"means over repeats under other seeds, where there are any: {', '.join(counts)}")
