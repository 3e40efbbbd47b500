"""`sonar data scan`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sonar.data.corpora import ScanResult
    from sonar.data.scan import ScanProgress

_SHOWN = 20  # bad files on the terminal; the report has all


def register_scan(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(scan)


def scan(
    path: Annotated[
        str, typer.Argument(help="Folder of class folders, folder with metadata.csv, or manifest; a path or a URL.")
    ],
    out: Annotated[str, typer.Option(help="Manifest to write, .parquet or .csv; a path or a URL.")],
    domain: Annotated[str, typer.Option(help="Domain name written to the manifest.")] = "new",
    root: Annotated[
        str | None,
        typer.Option(help="Folder or URL below which the audio lies, if that is not where the manifest is."),
    ] = None,
    max_bad_fraction: Annotated[
        float, typer.Option(help="Share of unusable files above which no manifest is written.", min=0, max=1)
    ] = 0.05,
    time_limit: Annotated[float, typer.Option(help="Seconds that one file may take.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check every file of a corpus, and write its manifest and the report of what was left out.

    What is found is kept beside the manifest (MANIFEST.scan.jsonl): a scan that was stopped goes on, and the next one
    reads only files that are new or have changed.
    """
    from sonar.data.corpora import scan_corpus
    from sonar.data.guard import Limits
    from sonar.data.manifest import beside_manifest
    from sonar.data.scan import ScanOptions
    from sonar.data.storage import is_url

    record = beside_manifest(out, ".scan.jsonl")
    with scan_progress() as report:
        options = ScanOptions(record=None if is_url(out) else record, report=report, limits=Limits(seconds=time_limit))
        found = scan_corpus(path, domain=domain, root=root, options=options)
    conclude(found, path, out, root=root, max_bad_fraction=max_bad_fraction, as_json=as_json)


def conclude(
    found: ScanResult, name: str, out: str, *, root: str | None = None, max_bad_fraction: float, as_json: bool
) -> None:
    """Report what was left out, and write the manifest of the rest unless too much was."""
    from sonar.data.corpora import finish_scan
    from sonar.data.manifest import write_manifest
    from sonar.data.quarantine import write_quarantine

    reports = write_quarantine(found.clips, found.quarantine, out)
    if found.quarantine and not as_json:
        typer.echo(f"left out, see {reports[0]}:")
        for bad in found.quarantine[:_SHOWN]:
            typer.echo(f"  quarantined {bad.path}: {bad.reason}")
    found = finish_scan(found, name=name, max_bad_fraction=max_bad_fraction)
    write_manifest(found.clips, out, root=root)
    _tell(found, out, reports, as_json)


def _tell(found: ScanResult, out: str, reports: list[str], as_json: bool) -> None:
    from sonar.data.quarantine import losses, total

    lost = total(losses(found.clips, found.quarantine))
    if as_json:
        typer.echo(json.dumps({"manifest": out, **lost._asdict(), "reports": reports}))
        return
    unknown = f", {lost.unknown_length} of unknown length" if lost.unknown_length else ""
    typer.echo(
        f"{lost.clips} clips, {lost.hours:.2f} h; {lost.bad} files quarantined "
        f"({lost.hours_lost:.2f} h lost{unknown}); manifest: {out}"
    )


@contextmanager
def scan_progress() -> Iterator[Callable[[ScanProgress], None]]:
    """Gives what hears how far a scan is."""
    from sonar.cli.data.progress import told_lines
    from sonar.data.scan_progress import describe

    began = time.monotonic()
    with told_lines() as told:
        yield lambda progress: told(progress.done, progress.total, describe(progress, time.monotonic() - began))
