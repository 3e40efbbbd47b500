"""`sonar data scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register_scan(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(scan)


def scan(
    path: Annotated[Path, typer.Argument(help="Folder of class folders, folder with metadata.csv, or manifest.")],
    out: Annotated[Path, typer.Option(help="Manifest to write, .parquet or .csv.")],
    domain: Annotated[str, typer.Option(help="Domain name written to the manifest.")] = "new",
) -> None:
    """Read a corpus, check every file and write its manifest."""
    from sonar.data.corpora import load_corpus
    from sonar.data.manifest import write_manifest

    found = load_corpus(path, domain=domain)
    write_manifest(found.clips, out)
    hours = sum(clip.duration_s for clip in found.clips) / 3600
    typer.echo(f"{len(found.clips)} clips, {hours:.2f} h; {len(found.quarantine)} quarantined; manifest: {out}")
    for bad in found.quarantine:
        typer.echo(f"  quarantined {bad.path}: {bad.reason}")
