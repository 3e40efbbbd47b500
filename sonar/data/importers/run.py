"""A corpus on disk -> its clips."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sonar.data.corpora import ScanResult, scan_listed
from sonar.data.importers.importer import Importer, ImportOptions
from sonar.data.scan import ScanOptions


class Imported(NamedTuple):
    """What a corpus holds, not yet judged (see `finish_scan`), and what the importer has to say."""

    found: ScanResult
    notes: tuple[str, ...]


def scan_import(
    importer: Importer,
    path: Path,
    *,
    domain: str,
    options: ImportOptions | None = None,
    scan: ScanOptions | None = None,
) -> Imported:
    """List a corpus and check every file that it lists.

    Args:
        importer: of the corpus.
        path: where it lies.
        domain: written to every clip.
        options: what the importer may be told.
        scan: how the files are checked.

    Returns:
        Clips with their official split or an empty one; files and entries that are left out.

    Raises:
        FileNotFoundError: a part of the layout is missing.
        ValueError: an option that does not suit.
        ManifestError: a table that does not fit.
    """
    listing = importer.read(path, options)
    own_name = path.stem if path.is_file() else path.resolve().name
    corpus = importer.name if importer.published else own_name
    found = scan_listed(listing.root, listing.files, corpus=corpus, domain=domain, options=scan)
    refused = tuple(bad._replace(stratum=corpus) for bad in listing.refused)
    return Imported(found._replace(quarantine=(*refused, *found.quarantine)), listing.notes)
