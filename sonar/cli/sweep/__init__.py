"""`sonar sweep`: plan and run a search, see how it stands, stop it and go on with it."""

from __future__ import annotations

import typer

from sonar.cli.sweep.plan import register_plan
from sonar.cli.sweep.resume import register_resume
from sonar.cli.sweep.run import register_run
from sonar.cli.sweep.status import register_status
from sonar.cli.sweep.stop import register_stop

sweep_app = typer.Typer(no_args_is_help=True, help="Plan and run a sweep, see how it stands, stop and resume it.")
register_plan(sweep_app)
register_run(sweep_app)
register_status(sweep_app)
register_stop(sweep_app)
register_resume(sweep_app)
