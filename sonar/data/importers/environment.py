"""Environmental sound: ESC-50, UrbanSound8K, FSD50K, TAU Urban Acoustic Scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sonar.data.importers.importer import Importer, ImportOptions, Listing, existing, held_out, published
from sonar.data.importers.tables import counted, read_json, read_rows
from sonar.data.listing import SPLIT_NAMES, Listed
from sonar.data.manifest import ManifestError

_ESC50_FOLDS = 5
_URBAN_FOLDS = 10


def _fold(row: dict[str, str], num_folds: int, table: Path) -> int:
    if not row["fold"].isdecimal() or not 1 <= int(row["fold"]) <= num_folds:
        raise ManifestError(f"{table}: fold is {row['fold']!r}; it is a number from 1 to {num_folds}")
    return int(row["fold"])


def _esc50(root: Path, options: ImportOptions) -> Listing:
    table = root / "meta" / "esc50.csv"
    return published(
        root,
        [
            Listed(
                f"audio/{row['filename']}",
                (row["category"],),
                row["src_file"],
                held_out(_fold(row, _ESC50_FOLDS, table), options.fold, _ESC50_FOLDS),
            )
            for row in read_rows(table, ("filename", "fold", "category", "src_file"))
        ],
    )


def _urbansound8k(root: Path, options: ImportOptions) -> Listing:
    table = root / "metadata" / "UrbanSound8K.csv"
    return published(
        root,
        [
            Listed(
                f"audio/fold{row['fold']}/{row['slice_file_name']}",
                (row["class"],),
                row["fsID"],
                held_out(_fold(row, _URBAN_FOLDS, table), options.fold, _URBAN_FOLDS),
            )
            for row in read_rows(table, ("slice_file_name", "fsID", "fold", "class"))
        ],
    )


def _fsd50k(root: Path, options: ImportOptions) -> Listing:
    truth = existing(root, "FSD50K.ground_truth")
    files = [*_fsd50k_part(root, truth / "dev.csv", "dev"), *_fsd50k_part(root, truth / "eval.csv", "eval")]
    known = (root / "FSD50K.metadata").is_dir()
    return published(root, files, () if known else ("FSD50K.metadata is not there: every clip is a group of its own",))


def _fsd50k_part(root: Path, table: Path, part: str) -> Iterator[Listed]:
    info = root / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
    clips = read_json(info) if info.parent.is_dir() else {}
    for row in read_rows(table, ("fname", "labels") + (("split",) if part == "dev" else ())):
        split = SPLIT_NAMES.get(row["split"]) if part == "dev" else "test"
        if split is None:
            raise ManifestError(f"{table}: split of {row['fname']} is {row['split']!r}; it is train or val")
        uploader = _uploader(clips, row["fname"], info) if clips else ""
        group = f"uploader {uploader}" if uploader else row["fname"]
        yield Listed(f"FSD50K.{part}_audio/{row['fname']}.wav", tuple(row["labels"].split(",")), group, split)


def _uploader(clips: Any, fname: str, info: Path) -> str:
    try:
        return clips[fname]["uploader"]
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{info} tells no uploader of {fname}") from error


def _tau(root: Path, options: ImportOptions) -> Listing:
    setup = existing(root, "evaluation_setup")
    splits: dict[str, str] = {}
    for name, split in (("fold1_train.csv", "train"), ("fold1_evaluate.csv", "test")):
        rows = read_rows(setup / name, ("filename", "scene_label"), delimiter="\t")
        splits |= dict.fromkeys((row["filename"] for row in rows), split)
    rows = read_rows(root / "meta.csv", ("filename", "scene_label", "identifier"), delimiter="\t")
    outside = counted(
        (row["filename"] for row in rows if row["filename"] not in splits),
        "{count} clips stand on neither side of the official fold and are left out, as {examples}",
    )
    files = [
        Listed(row["filename"], (row["scene_label"],), row["identifier"], splits[row["filename"]])
        for row in rows
        if row["filename"] in splits
    ]
    return published(root, files, [outside])


ESC50 = Importer(
    name="esc50",
    title="ESC-50",
    expects="meta/esc50.csv\naudio/1-100032-A-0.wav ...",
    source="https://github.com/karolpiczak/ESC-50",
    license="CC BY-NC 3.0",
    task="multi-class",
    group="Freesound recording (src_file)",
    split_note="five official folds: fold 5 is test, fold 4 dev, the others train; --fold N makes N test, N - 1 dev",
    layout=_esc50,
    takes=frozenset({"fold"}),
    num_folds=_ESC50_FOLDS,
)
URBANSOUND8K = Importer(
    name="urbansound8k",
    title="UrbanSound8K",
    expects="metadata/UrbanSound8K.csv\naudio/fold1/101415-3-0-2.wav ...\naudio/fold10/...",
    source="https://urbansounddataset.weebly.com/urbansound8k.html",
    license="CC BY-NC 3.0",
    task="multi-class",
    group="Freesound recording (fsID)",
    split_note="ten official folds: fold 10 is test, fold 9 dev, the others train; --fold N makes N test, N - 1 dev",
    layout=_urbansound8k,
    takes=frozenset({"fold"}),
    num_folds=_URBAN_FOLDS,
)
FSD50K = Importer(
    name="fsd50k",
    title="FSD50K",
    expects=(
        "FSD50K.ground_truth/dev.csv, eval.csv\nFSD50K.dev_audio/64760.wav ...\nFSD50K.eval_audio/37199.wav ...\n"
        "FSD50K.metadata/dev_clips_info_FSD50K.json, eval_clips_info_FSD50K.json (optional: the uploaders)"
    ),
    source="https://zenodo.org/records/4060432",
    license="CC BY 4.0; each clip has a licence of its own, some of them non-commercial",
    task="multi-label",
    group="Freesound uploader; the clip where FSD50K.metadata is missing",
    split_note="official train, val (dev) and eval (test)",
    layout=_fsd50k,
)
TAU = Importer(
    name="tau",
    title="TAU Urban Acoustic Scenes 2019, 2020 Mobile, 2022 Mobile (development sets)",
    expects=("meta.csv\nevaluation_setup/fold1_train.csv, fold1_evaluate.csv\naudio/airport-barcelona-0-0-a.wav ..."),
    source="https://zenodo.org/records/2589280, https://zenodo.org/records/3819968, https://zenodo.org/records/6337421",
    license="Tampere University's own: non-commercial, with attribution",
    task="multi-class",
    group="recording location (identifier: city and place)",
    split_note="official fold 1: evaluate is test; dev is dealt from its training part, by location",
    layout=_tau,
)
