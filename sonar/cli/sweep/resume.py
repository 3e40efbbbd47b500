"""`sonar sweep resume`."""

from __future__ import annotations

import os

import typer

from sonar.cli.options import SweepFolder
from sonar.cli.sweep.run import run


def register_resume(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(resume)


def resume(folder: SweepFolder) -> None:
    """Go on with a sweep as its journal says it was last run; its script is not needed."""
    from sonar.search.run import read_sweep
    from sonar.search.settings import options_of, sweep_of

    folder = folder.resolve()
    settings = read_sweep(folder).settings
    sweep, options = sweep_of(settings), options_of(settings, folder)
    enter_working_folder(settings["options"]["working_folder"])
    run(sweep, options)


def enter_working_folder(working_folder: str) -> None:
    """Relative paths of the sweep's audio and base are those of the folder in which it was started."""
    try:
        os.chdir(working_folder)
    except OSError as error:
        raise FileNotFoundError(
            f"the sweep was started in {working_folder}, which cannot be entered ({error.strerror}); its relative "
            "paths mean nothing elsewhere. Make that folder again, or resume by the script: sonar sweep run"
        ) from error
