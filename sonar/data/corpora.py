"""Corpora -> clips: what a manifest or a folder lists, checked file by file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sonar.data.audio import SHORT_BY_SECONDS
from sonar.data.audio_errors import CHANGED, Quarantined
from sonar.data.check import Checked
from sonar.data.listing import Listed, list_folder
from sonar.data.manifest import SUFFIXES, Clip, read_manifest
from sonar.data.quarantine import stratum_name
from sonar.data.recording import clip_too_long
from sonar.data.scan import ScanOptions, check_files
from sonar.data.splits import check_group_splits, complete_splits
from sonar.data.storage import as_root, contained, exists, is_url, join, name_of, parent_of, relative

MAX_BAD_FRACTION = 0.05
_SHOWN = 5  # bad files that an error names


class ScanResult(NamedTuple):
    """What a corpus holds: its good clips, and the files that were left out with reasons."""

    clips: list[Clip]
    quarantine: tuple[Quarantined, ...]


def load_corpus(
    path: str | Path,
    *,
    domain: str,
    seed: int = 0,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    options: ScanOptions | None = None,
) -> ScanResult:
    """Read a corpus and check every file of it.

    Understood are a manifest file (.csv or .parquet, see manifest.py), whose audio must be what it was when the
    manifest was made; a folder with `metadata.csv` (columns file, label, and optionally split and source_id); and a
    folder of class folders. Where no split is given, one is made by recording group.

    Args:
        path: manifest or folder, or the URL of one.
        domain: written to every clip of a folder.
        seed: of the split.
        max_bad_fraction: share of unusable files above which the scan stops.
        options: how it is scanned.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: no audio in it, too many unusable files, or splits that tear a recording apart.
        ManifestError: a table lacks a column, or holds a value that does not fit.
    """
    found = scan_corpus(path, domain=domain, options=options)
    return finish_scan(found, name=str(path), max_bad_fraction=max_bad_fraction, seed=seed)


def scan_corpus(
    path: str | Path, *, domain: str, root: str | Path | None = None, options: ScanOptions | None = None
) -> ScanResult:
    """The part of `load_corpus` before anything is judged: clips may lack a split, and all files may be bad.

    Args:
        path: as for `load_corpus`.
        domain: as for `load_corpus`.
        root: of the audio paths of a manifest; its own folder by default.
        options: how it is scanned.
    """
    place = as_root(path)
    if not exists(place):
        raise FileNotFoundError(f"no corpus at {path}; give a manifest, a folder with metadata.csv or class folders")
    if place.partition("::")[0].endswith(SUFFIXES) if is_url(place) else Path(place).is_file():
        base = parent_of(place) if root is None else as_root(root)
        return _verify(read_manifest(place, root=base), base, options or ScanOptions())
    return scan_listed(place, list_folder(place), corpus=name_of(place), domain=domain, options=options)


def finish_scan(
    found: ScanResult, *, name: str, max_bad_fraction: float = MAX_BAD_FRACTION, seed: int = 0
) -> ScanResult:
    """The rest of `load_corpus`: too many bad files are refused, and what has no split gets one."""
    total = len(found.clips) + len(found.quarantine)
    refuse_bad_share(found.quarantine, total, max_bad_fraction, f"files of {name} are unusable")
    clips = complete_splits(found.clips, seed=seed)
    check_group_splits(clips)
    return ScanResult(clips, found.quarantine)


def scan_listed(
    root: str | Path, listed: Iterable[Listed], *, corpus: str, domain: str, options: ScanOptions | None = None
) -> ScanResult:
    """Check every listed file below `root`, each once; a clip without a split keeps an empty one.

    Args:
        root: folder or URL.
        listed: what the corpus says of its files; several may be segments of one file.
        corpus: its name.
        domain: of its clips.
        options: how it is scanned.
    """
    root, listed = as_root(root), list(listed)
    checked = check_files(root, (item.file for item in listed), options or ScanOptions())
    clips: list[Clip] = []
    bad: dict[tuple[str, str], Quarantined] = {}  # a bad file counts once, however many segments it has
    for item in listed:
        made = _clip(root, item, checked[item.file], corpus, domain)
        if isinstance(made, Clip):
            clips.append(made)
        else:
            bad.setdefault((made.path, made.reason), made)
    return ScanResult(clips, tuple(bad.values()))


def refuse_bad_share(bad: Sequence[Quarantined], total: int, max_bad_fraction: float, what: str) -> None:
    """Stop where more than `max_bad_fraction` of the `total` items are bad, or all of them.

    Args:
        bad: the bad ones.
        total: of good and bad ones.
        max_bad_fraction: share that is allowed.
        what: completes "3 of 4", as in "files of birds are unusable".

    Raises:
        ValueError: names the first of them.
    """
    if len(bad) > max_bad_fraction * total or len(bad) == total:
        shown = "; ".join(f"{item.path}: {item.reason}" for item in bad[:_SHOWN])
        raise ValueError(f"{len(bad)} of {total} {what} (allowed: {max_bad_fraction:.0%}): {shown}")


def _verify(clips: Sequence[Clip], root: str, options: ScanOptions) -> ScanResult:
    """The clips of a manifest whose files are good and still what they were."""
    files = [relative(clip.path, root) for clip in clips]
    checked = check_files(root, files, options)
    good: list[Clip] = []
    bad: list[Quarantined] = []
    for clip, file in zip(clips, files, strict=True):
        one = checked[file]
        if not one.reason and one.sha256 != clip.sha256:
            one = one._replace(reason=CHANGED, kind="changed")
        one = _within(one, clip.start_s, clip.duration_s)
        if one.reason:
            seconds = clip.duration_s if one.seconds is None else one.seconds
            bad.append(_quarantined(clip.path, one._replace(seconds=seconds), clip.corpus, clip.labels))
        else:
            good.append(clip)
    return ScanResult(good, tuple(bad))


def _clip(root: str, item: Listed, checked: Checked, corpus: str, domain: str) -> Clip | Quarantined:
    """The clip of a listed file, or the reason why there is none."""
    whole_s = checked.seconds or 0.0
    duration_s = whole_s - item.start_s if item.duration_s is None else item.duration_s
    checked = _within(checked, item.start_s, duration_s)
    if checked.reason:
        return _quarantined(join(root, item.file), checked, corpus, item.labels)
    return Clip(
        clip_id=f"{corpus}/{item.file}" + (f"@{item.start_s:g}" if item.start_s else ""),
        path=contained(item.file, root) if ".." in item.file else join(root, item.file),
        start_s=item.start_s,
        duration_s=duration_s,
        sample_rate=checked.sample_rate,
        channels=checked.channels,
        corpus=corpus,
        domain=domain,
        labels=item.labels,
        group=f"{corpus}/{item.group}",
        split=item.split,
        sha256=checked.sha256,
    )


def _within(checked: Checked, start_s: float, duration_s: float) -> Checked:
    """Bad where the file ends before the clip does, see `Recording.clip`."""
    whole_s = checked.seconds or 0.0
    if checked.reason or (duration_s > 0 and start_s + duration_s <= whole_s + SHORT_BY_SECONDS):
        return checked
    error = clip_too_long(start_s + duration_s, whole_s)
    return checked._replace(reason=str(error), kind=error.kind)


def _quarantined(path: str, checked: Checked, corpus: str, labels: Sequence[str]) -> Quarantined:
    shown = path.encode(errors="backslashreplace").decode()  # a name may be no text, and that be the reason
    stratum = stratum_name(corpus, labels)
    return Quarantined(shown, checked.reason, checked.sha256, checked.kind, stratum, checked.seconds)
