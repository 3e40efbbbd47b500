"""The typer application and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import typer

from sonar.cli.compare import register_compare
from sonar.cli.data import data_app
from sonar.cli.evaluate import register_evaluate
from sonar.cli.front import front_app
from sonar.cli.model import register_model_commands
from sonar.cli.noise import register_noise
from sonar.cli.report import register_report
from sonar.cli.sequence import register_sequence
from sonar.cli.sweep import sweep_app
from sonar.cli.sweep.run import run_script

if TYPE_CHECKING:
    from sonar.search.space import Sweep

USER_ERROR = 2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Adapt BEATs audio encoders to a new domain without forgetting the rest.",
)
app.add_typer(sweep_app, name="sweep")
app.add_typer(front_app, name="front")
app.add_typer(data_app, name="data")
register_model_commands(app)
register_evaluate(app)
register_sequence(app)
register_compare(app)
register_noise(app)
register_report(app)


def cli() -> None:
    """Entry point of the `sonar` command."""
    guarded(app)


def main(sweep: Sweep) -> None:
    """Entry point of a sweep script: `python sweeps/bio.py --help` tells its options."""
    guarded(run_script(sweep))


def guarded(command: Any) -> None:
    """Run a command; a user's error ends with exit status 2 and its message; SONAR_TRACEBACK=1 shows where it rose."""
    from sonar.search.events import JournalError

    try:
        command()
    except (ValueError, FloatingPointError, FileNotFoundError, FileExistsError, JournalError) as error:
        if os.environ.get("SONAR_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(USER_ERROR) from error
