"""`sonar sweep stop`."""

from __future__ import annotations

import getpass
import os
import socket
import time
from typing import Annotated

import typer

from sonar.cli.options import SweepFolder


def register_stop(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(stop)


def stop(
    folder: SweepFolder,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the owner to have ended.")] = 0.0,
) -> None:
    """Ask a sweep to stop, from any host that sees its folder: running trials save their state and end."""
    from sonar.search.owner import read_owner
    from sonar.search.run import read_sweep
    from sonar.search.stopping import StopRequest

    read_sweep(folder)
    owner = read_owner(folder)
    if owner is None or owner.is_stale:
        typer.echo(f"nobody runs {folder}; resume it by: sonar sweep resume {folder}")
        return
    StopRequest(folder).ask(f"{getpass.getuser()} on {socket.gethostname()} (process {os.getpid()})")
    typer.echo(f"asked {owner} to stop; it ends when its running trials have saved their state")
    until = time.monotonic() + wait
    while time.monotonic() < until:
        if (now := read_owner(folder)) is None or now.token != owner.token or now.is_stale:
            typer.echo(f"it has ended; resume it by: sonar sweep resume {folder}")
            return
        time.sleep(0.5)
    if wait:
        raise ValueError(
            f"{owner} has not ended within {wait:g} s; it may be evaluating, ask again with a longer --wait"
        )
