"""Every importer by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sonar.data.importers.audioset import AUDIOSET
from sonar.data.importers.bioacoustics import BEANS, CBI, INAT_SOUNDS
from sonar.data.importers.environment import ESC50, FSD50K, TAU, URBANSOUND8K
from sonar.data.importers.generic import CSV, FOLDER
from sonar.data.importers.huggingface import HUGGINGFACE
from sonar.data.importers.importer import Importer
from sonar.data.importers.music import FMA, GTZAN
from sonar.data.importers.speech import CREMAD, EMODB, IEMOCAP, RAVDESS
from sonar.data.importers.webdataset import WEBDATASET

_ALL = (
    FOLDER, CSV, HUGGINGFACE, WEBDATASET, AUDIOSET, FSD50K, ESC50, URBANSOUND8K, TAU, GTZAN, FMA, IEMOCAP, CREMAD,
    RAVDESS, EMODB, INAT_SOUNDS, CBI, BEANS,
)  # fmt: skip

IMPORTERS: Mapping[str, Importer] = MappingProxyType({importer.name: importer for importer in _ALL})


def find_importer(name: str) -> Importer:
    """The importer of a name.

    Raises:
        ValueError: there is none; names all.
    """
    if name not in IMPORTERS:
        raise ValueError(f"no importer {name!r}; there are {', '.join(IMPORTERS)}: see sonar data import --list")
    return IMPORTERS[name]


def markdown_table() -> str:
    """The importers as a table for the documentation."""
    rows = ["| name | corpus | expected below PATH | group | split | licence | from |", "|---|---|---|---|---|---|---|"]
    for item in IMPORTERS.values():
        expects = item.expects.replace("\n", "<br>")
        cells = (f"`{item.name}`", item.title, expects, item.group, item.split_note, item.license, item.source)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
