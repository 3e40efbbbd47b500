"""`sonar sweep status`."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from sonar.cli.options import SweepFolder


def register_status(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(status)


def status(
    folder: SweepFolder,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Who runs it or that nobody does, its progress, the time left, and why trials failed or wait."""
    from sonar.search.owner import read_owner
    from sonar.search.progress import describe, duration
    from sonar.search.run import JOURNAL_FILE, read_sweep
    from sonar.search.standing import plain, standing

    state, owner = read_sweep(folder), read_owner(folder / JOURNAL_FILE)
    found = standing(state, owner, str(folder), time.time())
    if as_json:
        typer.echo(json.dumps(plain(found, owner)))
        return
    typer.echo(found.sentence)
    ends_in = "" if found.eta_s is None else f" | ETA {duration(found.eta_s)}"
    typer.echo(describe(state) + ends_in)
    for record in state.trials.values():
        if record.status in ("failed", "paused"):
            typer.echo(f"  {record.trial_id} {record.status}: {record.reason}")
