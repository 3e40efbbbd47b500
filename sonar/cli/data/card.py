"""`sonar data card`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register_card(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(card)


def card(
    path: Annotated[str, typer.Argument(help="Manifest or folder to describe; a path or a URL.")],
    against: Annotated[
        list[str] | None, typer.Option(help="Manifest or folder that must not share audio with it; repeatable.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    html: Annotated[Path | None, typer.Option(help="HTML file to write, with spectrograms.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. Without it: one for each CPU.")] = None,
    max_clips: Annotated[
        int | None, typer.Option(help="Read the audio of so many clips only, drawn by --seed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    pictures: Annotated[int, typer.Option(help="Spectrograms of each class in the HTML.", min=0)] = 3,
    min_clips: Annotated[int, typer.Option(help="Classes with fewer clips are told.")] = 20,
) -> None:
    """Describe a corpus: balance, length, band, level, copies, leakage, and what to do about it."""
    from rich.console import Console

    from sonar.card_page import card_page
    from sonar.card_pictures import draw_classes
    from sonar.cli.data.card_tables import card_parts
    from sonar.cli.data.progress import told_progress
    from sonar.data.card import CardConfig, make_card, read_source
    from sonar.data.card_schema import card_json
    from sonar.files import write_whole_text

    config = CardConfig(max_clips=max_clips, seed=seed, min_clips=min_clips, workers=workers)
    source = read_source(path)
    others = [read_source(other) for other in against or ()]
    with told_progress("clips read") as progress:
        made = make_card(source, against=others, config=config, progress=progress)
    console = Console()
    for part in card_parts(made):
        console.print(part)
    if json is not None:
        write_whole_text(json, card_json(made))
        typer.echo(f"wrote {json}")
    if html is not None:
        drawn = draw_classes(source.clips, pictures, workers=workers)
        write_whole_text(html, card_page(made, drawn))
        typer.echo(f"wrote {html}")
