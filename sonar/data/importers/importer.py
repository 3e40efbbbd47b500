"""What an importer is: how a published corpus lies on disk, and what it says of its files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from sonar.data.audio_errors import Quarantined
from sonar.data.listing import Listed
from sonar.data.manifest import SPLITS, ManifestError

Task = Literal["multi-class", "multi-label"]


class MissingPart(FileNotFoundError):
    """A file or folder of the layout that is not there; the message names it."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a user may choose; an importer names those that it takes.

    Attributes:
        fold: the fold, counted from 1, that becomes the test split; None for the last one.
        columns: field of ours -> column or key of the corpus.
        extract_to: folder that audio inside containers is unpacked to.
    """

    fold: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    extract_to: Path | None = None


class Listing(NamedTuple):
    """What a corpus lists.

    Attributes:
        root: folder that the files lie below.
        files: in the order of the corpus.
        refused: entries that name no file which could be read, with reasons.
        notes: what was left out or inferred, for the user to read.
    """

    root: Path
    files: list[Listed]
    refused: tuple[Quarantined, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One layout on disk.

    Attributes:
        name: on the command line.
        title: of the corpus.
        expects: files and folders below PATH, one a line.
        source: where to get it.
        license: what to know of its terms.
        task: whether a clip has one class or several.
        group: what a group is.
        split_note: the official split, and what is inferred.
        layout: lists the corpus at a path.
        takes: names of the `ImportOptions` that it heeds.
        num_folds: official folds.
        published: whether the name names one corpus, and not a way to store any.
    """

    name: str
    title: str
    expects: str
    source: str
    license: str
    task: Task
    group: str
    split_note: str
    layout: Callable[[Path, ImportOptions], Listing]
    takes: frozenset[str] = frozenset()
    num_folds: int = 0
    published: bool = True

    def read(self, path: Path, options: ImportOptions | None = None) -> Listing:
        """What the corpus at `path` lists.

        Raises:
            FileNotFoundError: names the part of the layout that is missing, and shows the layout.
            ValueError: an option that is not for this corpus, or nothing listed.
            ManifestError: a table that does not fit, or a clip that is listed twice.
        """
        options = options or ImportOptions()
        self._check(options)
        try:
            listing = self.layout(path, options)
        except MissingPart as missing:
            raise FileNotFoundError(
                f"{self.title}: there is no {missing}; expected below PATH:\n{self.expects}\nfrom {self.source}"
            ) from missing
        if not listing.files and not listing.refused:
            raise ValueError(f"{self.title}: no audio listed in {path}; expected below PATH:\n{self.expects}")
        _check_unique(listing)
        return listing

    def list(self, root: Path) -> Sequence[Listed]:
        """The files of `read` without options."""
        return self.read(root).files

    def _check(self, options: ImportOptions) -> None:
        given = {"fold": options.fold is not None, "columns": options.columns, "extract_to": options.extract_to}
        for name in sorted(name for name, value in given.items() if value and name not in self.takes):
            takes = ", ".join(sorted(self.takes)) or "none"
            raise ValueError(f"{self.name} has no use for the option {name}; of these options it takes: {takes}")
        if options.fold is not None and not 1 <= options.fold <= self.num_folds:
            raise ValueError(f"{self.name} has folds 1 to {self.num_folds}, not {options.fold}")


def published(root: Path, files: Iterable[Listed], notes: Iterable[str] = ()) -> Listing:
    """A listing that keeps the publisher's split and lets a missing one be made.

    Where the publisher has no dev or no test split, clips of the training part get an empty split, to be dealt by
    group. Where the publisher's split tears a group apart, it is kept as published, and what stands in each split
    counts as a group of its own. Empty notes are dropped.
    """
    files, notes = list(files), list(filter(None, notes))
    given = {item.split for item in files}
    lacking = [split for split in SPLITS if split not in given]
    if "train" in given and "" not in given and lacking:
        files = [item._replace(split="") if item.split == "train" else item for item in files]
        notes.append(f"no official split for {' and '.join(lacking)}: dealt from the training part, by group")
    splits: dict[str, set[str]] = defaultdict(set)
    for item in files:
        splits[item.group].add(item.split)
    torn = {group for group, found in splits.items() if len(found) > 1}
    if torn:
        files = [_apart(item) if item.group in torn else item for item in files]
        notes.append(f"{len(torn)} groups stand in several official splits, as {min(torn)!r}; the split is kept")
    return Listing(root, files, notes=tuple(notes))


def held_out(fold: int, chosen: int | None, num_folds: int) -> str:
    """Split of a fold: the chosen one (by default the last) is test, the one before it dev, and before 1 the last."""
    test = chosen or num_folds
    dev = test - 1 or num_folds
    return {test: "test", dev: "dev"}.get(fold, "train")


def existing(root: Path, *names: str) -> Path:
    """The first of the paths below `root` that is there.

    Raises:
        MissingPart: none of them is.
    """
    for name in names:
        if (path := root / name).exists():
            return path
    raise MissingPart(f"{' or '.join(names)} in {root}")


def with_notes(listing: Listing, *notes: str, refused: Iterable[Quarantined] = ()) -> Listing:
    """The listing, with more to say; empty notes are dropped."""
    return listing._replace(notes=(*listing.notes, *filter(None, notes)), refused=(*listing.refused, *refused))


def _apart(item: Listed) -> Listed:
    return item._replace(group=f"{item.group}@{item.split or 'train'}")


def _check_unique(listing: Listing) -> None:
    seen: set[tuple[str, float]] = set()
    for item in listing.files:
        if (item.file, item.start_s) in seen:
            raise ManifestError(f"{item.file} is listed twice in {listing.root}; every clip is listed once")
        seen.add((item.file, item.start_s))
