"""Environmental sound: ESC-50, UrbanSound8K, FSD50K, TAU Urban Acoustic Scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonar.data.importers.importer import Importer, ImportOptions, Listing, existing, held_out, published
from sonar.data.importers.tables import counted, read_json, read_rows
from sonar.data.listing import SPLIT_NAMES, Listed
from sonar.data.manifest import ManifestError

_ESC50_FOLDS = 5
_URBAN_FOLDS = 10


@dataclass(frozen=True, kw_only=True)
class _Folds:
    """Layout of a corpus with one table, whose rows tell file, class, group and official fold.

    Attributes:
        table: its path.
        folder: of the audio, a pattern of a row's values.
        name: column of the file's name.
        label: column of the class.
        group: column of the group.
        num_folds: official folds, counted from 1.
    """

    table: str
    folder: str
    name: str
    label: str
    group: str
    num_folds: int

    def __call__(self, root: Path, options: ImportOptions) -> Listing:
        """The rows, with the folds as splits."""
        rows = read_rows(root / self.table, (self.name, "fold", self.label, self.group))
        return published(root, [self._listed(row, root, options.fold) for row in rows])

    def _listed(self, row: dict[str, str], root: Path, chosen: int | None) -> Listed:
        fold = row["fold"]
        if not fold.isdecimal() or not 1 <= int(fold) <= self.num_folds:
            raise ManifestError(f"{root / self.table}: fold is {fold!r}; it is a number from 1 to {self.num_folds}")
        file = f"{self.folder.format(**row)}/{row[self.name]}"
        return Listed(file, (row[self.label],), row[self.group], held_out(int(fold), chosen, self.num_folds))


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
    layout=_Folds(
        table="meta/esc50.csv",
        folder="audio",
        name="filename",
        label="category",
        group="src_file",
        num_folds=_ESC50_FOLDS,
    ),
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
    layout=_Folds(
        table="metadata/UrbanSound8K.csv",
        folder="audio/fold{fold}",
        name="slice_file_name",
        label="class",
        group="fsID",
        num_folds=_URBAN_FOLDS,
    ),
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
