"""`sonar front`: what a sweep found, and a choice from it."""

from __future__ import annotations

import typer

from sonar.cli.front.pick import register_pick
from sonar.cli.front.reeval import register_reeval
from sonar.cli.front.show import register_show

front_app = typer.Typer(no_args_is_help=True, help="The front of a sweep and a pick from it.")
register_show(front_app)
register_pick(front_app)
register_reeval(front_app)
