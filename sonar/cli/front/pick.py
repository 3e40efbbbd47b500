"""`sonar front pick`."""

from __future__ import annotations

from typing import Annotated

import typer

from sonar.cli.options import SweepFolder


def register_pick(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("pick")(pick_command)


def pick_command(
    folder: SweepFolder,
    rule: Annotated[str, typer.Option(help="epsilon or knee.")] = "epsilon",
    limit: Annotated[float | None, typer.Option(help="Highest forgetting rate, percent.")] = None,
) -> None:
    """Choose one candidate of the front and say why."""
    from sonar.search.results import pick
    from sonar.search.run import read_sweep

    ranked, chosen = pick(read_sweep(folder), rule, limit)
    typer.echo(chosen.explanation)
    typer.echo(f"checkpoint: {ranked.candidate.checkpoint}")
