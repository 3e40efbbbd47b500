"""`sonar sweep`: search, and see how a search stands."""

from __future__ import annotations

import typer

from sonar.cli.sweep.run import register_run
from sonar.cli.sweep.status import register_status

sweep_app = typer.Typer(no_args_is_help=True, help="Run a sweep and see how it stands.")
register_run(sweep_app)
register_status(sweep_app)
