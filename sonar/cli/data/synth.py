"""`sonar data synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register_synth(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(synth)


def synth(
    name: Annotated[str, typer.Argument(help="prior, bio, music, speech or env.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    seed: Annotated[int, typer.Option(help="Of every sound.")] = 0,
) -> None:
    """Write an embedded corpus as ordinary audio files with metadata.csv."""
    from sonar.data.synth import write_synth_corpus

    typer.echo(f"wrote {write_synth_corpus(name, folder, seed=seed)}")
