"""A corpus on disk -> its clips with splits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sonar.data.audio import Quarantined
from sonar.data.corpora import MAX_BAD_FRACTION, refuse_bad_share, scan_listed
from sonar.data.importers.importer import Importer, ImportOptions
from sonar.data.manifest import Clip
from sonar.data.splits import check_group_splits, complete_splits


class Imported(NamedTuple):
    """Good clips with splits; what was left out, with reasons; and what the importer has to say."""

    clips: list[Clip]
    quarantine: tuple[Quarantined, ...]
    notes: tuple[str, ...]


def import_corpus(
    importer: Importer,
    path: Path,
    *,
    domain: str,
    options: ImportOptions | None = None,
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> Imported:
    """List a corpus, check every file and give the clips without an official split one, by group.

    Args:
        importer: of the corpus.
        path: where it lies.
        domain: written to every clip.
        options: what the importer may be told.
        max_bad_fraction: share of unusable files and entries above which it stops.

    Raises:
        FileNotFoundError: a part of the layout is missing.
        ValueError: an option that does not suit, too many unusable files, or splits that tear a group apart.
        ManifestError: a table that does not fit.
    """
    listing = importer.read(path, options)
    found = scan_listed(listing.root, listing.files, corpus=corpus_name(importer, path), domain=domain)
    quarantine = (*listing.refused, *found.quarantine)
    refuse_bad_share(quarantine, len(listing.files) + len(listing.refused), max_bad_fraction, str(path))
    clips = complete_splits(found.clips)
    check_group_splits(clips)
    return Imported(clips, quarantine, listing.notes)


def corpus_name(importer: Importer, path: Path) -> str:
    """The published name, or that of the folder or file for a corpus of one's own."""
    return importer.name if importer.published else path.resolve().stem
