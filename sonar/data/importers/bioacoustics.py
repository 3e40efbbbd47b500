"""Bioacoustics: iNaturalist Sounds; CBI and the other classification sets of BEANS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sonar.data.importers.importer import Importer, ImportOptions, Listing, MissingPart, existing, published
from sonar.data.importers.tables import read_json, read_rows
from sonar.data.listing import Listed
from sonar.data.manifest import ManifestError

_SPLITS_ON_DISK = {"train": "train", "val": "dev", "test": "test"}
_BEANS_SPLITS = {"train": "train", "valid": "dev", "test": "test"}


def _inat_sounds(root: Path, options: ImportOptions) -> Listing:
    existing(root, *(f"{name}.json" for name in _SPLITS_ON_DISK))
    files: list[Listed] = []
    for name, split in _SPLITS_ON_DISK.items():
        if (table := root / f"{name}.json").exists():
            files += _inat_part(table, split)
    return published(root, files)


def _inat_part(table: Path, split: str) -> Iterator[Listed]:
    content = read_json(table)
    try:
        names = {category["id"]: category["name"] for category in content["categories"]}
        species = {item["audio_id"]: names[item["category_id"]] for item in content["annotations"]}
        for audio in content["audio"]:
            file = audio["file_name"]
            inside = file if file.startswith(f"{table.stem}/") else f"{table.stem}/{file}"
            yield Listed(inside, (species[audio["id"]],), _inat_group(audio), split)
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{table} lacks {error}; it has categories, annotations and audio, joined by id") from error


def _inat_group(audio: dict[str, Any]) -> str:
    """Who recorded and on which day; the recording itself where that is not told."""
    recordist, date = audio.get("rights_holder"), str(audio.get("date") or "")[: len("2020-05-17")]
    return f"{recordist} {date}" if recordist and date else f"recording {audio['id']}"


def _beans(root: Path, options: ImportOptions) -> Listing:
    tables = {split: _beans_table(root, name) for name, split in _BEANS_SPLITS.items()}
    recordists = _recordists(root)
    files = []
    for split, table in tables.items():
        for row in read_rows(table, ("path", "label")):
            file = _below(root, row["path"])
            group = f"recordist {recordists[stem]}" if (stem := Path(file).stem) in recordists else file
            files.append(Listed(file, (row["label"],), group, split))
    note = "" if recordists else "recordists are not in the tables: every clip is a group of its own, the split is kept"
    return published(root, files, [note])


def _beans_table(root: Path, split: str) -> Path:
    if (root / f"{split}.jsonl").exists():
        raise MissingPart(
            f"annotations.{split}.csv in {root}: with {split}.jsonl it is a detection set, which is not read"
        )
    names = (f"annotations.{split}.csv", f"{split}.csv", f"data/metadata/{split}.csv", f"meta/{root.name}.{split}.csv")
    return existing(root, *names)


def _below(root: Path, path: str) -> str:
    """A path of BEANS' tables, which starts at its repository, as the path of that file below the set's folder."""
    parts = PurePosixPath(path).parts
    shorter = (PurePosixPath(*parts[begin:]) for begin in range(len(parts)))
    inside = (part for part in shorter if not part.is_absolute() and ".." not in part.parts)
    return next((part.as_posix() for part in inside if (root / part).is_file()), path)


def _recordists(root: Path) -> dict[str, str]:
    """Recordist of every recording, as the competition's train.csv tells, which CBI is made of."""
    table = root / "train.csv"
    rows = read_rows(table, ()) if table.exists() else []
    return {
        Path(row["filename"]).stem: row["recordist"] for row in rows if row.get("recordist") and row.get("filename")
    }


INAT_SOUNDS = Importer(
    name="inat-sounds",
    title="iNaturalist Sounds 2024",
    expects="train.json, val.json, test.json\ntrain/CATEGORY/RECORDING.wav ...\nval/ ...\ntest/ ...",
    source="https://github.com/gvanhorn38/iNatSounds",
    license="non-commercial research; each recording has a licence of its own",
    task="multi-class",
    group="recordist and day; the recording where these are not given",
    split_note="official train, val (dev) and test",
    layout=_inat_sounds,
)
BEANS = Importer(
    name="beans",
    title="a classification set of BEANS (watkins, bats, dogs, humbugdb, ...)",
    expects=(
        "annotations.train.csv, annotations.valid.csv, annotations.test.csv with path and label (or train.csv, "
        "valid.csv, test.csv)\nwav/RECORDING.wav ..., as the tables name them"
    ),
    source="https://github.com/earthspecies/beans",
    license="that of the set",
    task="multi-class",
    group="clip: the tables hold no recording key",
    split_note="official train, valid (dev) and test",
    layout=_beans,
    published=False,
)
CBI = replace(
    BEANS,
    name="cbi",
    published=True,
    title="CBI (Cornell Bird Identification) as prepared by BEANS",
    expects=(
        "annotations.train.csv, annotations.valid.csv, annotations.test.csv with path and label\n"
        "wav/XC135454.wav ...\ntrain.csv of the competition (optional: the recordists)"
    ),
    source="https://github.com/earthspecies/beans (scripts/cbi.py), from https://www.kaggle.com/c/birdsong-recognition",
    license="CC BY-NC-SA, recording by recording (xeno-canto)",
    group="recordist; the clip where train.csv is missing",
    split_note="official train, valid (dev) and test, apart by recordist",
)
