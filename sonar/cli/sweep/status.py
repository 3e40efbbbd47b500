"""`sonar sweep status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sonar.cli.options import SweepFolder

if TYPE_CHECKING:
    from sonar.search.journal import SweepState


def register_status(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(status)


def status(folder: SweepFolder) -> None:
    """One line of progress and the trials that failed, with reasons."""
    from sonar.search.progress import describe
    from sonar.search.run import read_sweep

    state = read_sweep(folder)
    typer.echo(describe(state, _total(state)))
    for record in state.trials.values():
        if record.status == "failed":
            typer.echo(f"  {record.trial_id} failed: {record.reason}")


def _total(state: SweepState) -> int:
    return len(state.settings["anchors"]) + int(state.settings["num_trials"])
