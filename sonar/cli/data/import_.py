"""`sonar data import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonar.cli.data.scan import conclude, scan_progress

if TYPE_CHECKING:
    from sonar.data.importers.importer import Importer, ImportOptions
    from sonar.data.importers.run import Imported


def register_import(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import")(import_)


def import_(
    corpus: Annotated[str | None, typer.Argument(help="Name of the corpus or layout; --list names them.")] = None,
    path: Annotated[Path | None, typer.Argument(help="Where it lies.")] = None,
    out: Annotated[Path | None, typer.Option(help="Manifest to write, .parquet or .csv.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder above the audio, if the manifest is to lie elsewhere.")
    ] = None,
    domain: Annotated[str, typer.Option(help="Domain name written to the manifest.")] = "new",
    fold: Annotated[int | None, typer.Option(help="Official fold that becomes the test split.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Field and its column in the corpus, as in label=species; repeatable.")
    ] = None,
    extract_to: Annotated[
        Path | None, typer.Option(help="Folder to unpack Parquet, Arrow and tar to; what is there already is kept.")
    ] = None,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Share of unusable files above which no manifest is written.", min=0, max=1)
    ] = 0.05,
    show: Annotated[
        bool, typer.Option("--list", help="What can be imported, or one corpus of it, and how it lies on disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list or the result as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="With --list: as a Markdown table.")] = False,
) -> None:
    """Read a published corpus with its official split, check every file and write its manifest."""
    from sonar.data.importers import IMPORTERS, ImportOptions, find_importer, markdown_table

    if show and as_markdown:
        typer.echo(markdown_table())
    elif show:
        _show([find_importer(corpus)] if corpus else list(IMPORTERS.values()), as_json)
    elif corpus is None or path is None or out is None:
        raise ValueError("give a corpus, a path and --out, or --list to see what can be imported")
    else:
        importer = find_importer(corpus)
        options = ImportOptions(fold=fold, columns=_assignments(column or []), extract_to=extract_to)
        _check_above(root or out.resolve().parent, extract_to or path)
        imported = _read(importer, path, out, domain, options)
        for note in () if as_json else imported.notes:
            typer.echo(f"note: {note}")
        above = None if root is None else str(root)
        conclude(imported.found, str(path), str(out), root=above, max_bad_fraction=max_bad_fraction, as_json=as_json)


def _read(importer: Importer, path: Path, out: Path, domain: str, options: ImportOptions) -> Imported:
    from sonar.data.importers.run import scan_import
    from sonar.data.manifest import beside_manifest
    from sonar.data.scan import ScanOptions

    record = beside_manifest(out, ".scan.jsonl")
    with scan_progress() as report:
        return scan_import(
            importer, path, domain=domain, options=options, scan=ScanOptions(record=record, report=report)
        )


def _assignments(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if not all(text.partition("=")):
            raise ValueError(f"--column {text}: give FIELD=COLUMN, as in label=species")
    return {text.partition("=")[0]: text.partition("=")[2] for text in texts}


def _check_above(root: Path, audio: Path) -> None:
    """Refuse before the audio is read what could not be written after it."""
    if not audio.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{audio} does not lie below {root}: put the manifest above its audio, or give --root")


def _show(importers: list[Importer], as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    shown = ("name", "title", "expects", "group", "split_note", "license", "source", "task")
    if as_json:
        typer.echo(json.dumps([{name: getattr(item, name) for name in shown} for item in importers], indent=2))
        return
    table = Table(Column("corpus", max_width=24), Column("on disk, below PATH", overflow="fold"), show_lines=True)
    for item in importers:
        about = {"split": item.split_note, "group": item.group, "from": item.source, "licence": item.license}
        told = "\n".join(f"{name}: {value}" for name, value in about.items())
        table.add_row(f"{item.name}\n({item.title}; {item.task})", f"{item.expects}\n\n{told}")
    Console().print(table)
