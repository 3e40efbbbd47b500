"""`sonar data`: scan one's own corpora, write the embedded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(no_args_is_help=True, help="Corpora: scan your own, write the embedded ones.")


@data_app.command()
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


@data_app.command()
def synth(
    name: Annotated[str, typer.Argument(help="prior, bio, music, speech or env.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    seed: Annotated[int, typer.Option(help="Of every sound.")] = 0,
) -> None:
    """Write an embedded corpus as ordinary audio files with metadata.csv."""
    from sonar.data.synth import write_synth_corpus

    typer.echo(f"wrote {write_synth_corpus(name, folder, seed=seed)}")
