"""Music: GTZAN and FMA."""

from __future__ import annotations

import csv
from pathlib import Path

from sonar.data.csv_table import ManifestError, table_of_text
from sonar.data.importers.importer import Importer, ImportOptions, Listing, MissingPart, existing, published
from sonar.data.importers.tables import counted, lines, split_value, visible
from sonar.data.listing import Listed

_GENRES = frozenset("blues classical country disco hiphop jazz metal pop reggae rock".split())
_GTZAN_LISTS = {"train": "train_filtered.txt", "dev": "valid_filtered.txt", "test": "test_filtered.txt"}
_GTZAN_SUFFIXES = (".wav", ".au")  # of the copies in circulation, and of the original
_FMA_SUBSETS = ("small", "medium", "large", "full")  # each holds the ones before it
_FMA_COLUMNS = (("set", "split"), ("set", "subset"), ("artist", "id"), ("track", "genre_top"))


def _gtzan(root: Path, options: ImportOptions) -> Listing:
    audio = existing(root, "genres", "genres_original", "Data/genres_original", "blues")
    audio = root if audio.name == "blues" else audio
    on_disk = {
        f"{path.parent.name}/{path.stem}": path.relative_to(root).as_posix()
        for path in visible(audio.glob("*/*"))
        if path.parent.name in _GENRES and path.suffix in _GTZAN_SUFFIXES
    }
    if not any((root / name).exists() for name in _GTZAN_LISTS.values()):
        note = f"the lists {', '.join(_GTZAN_LISTS.values())} are not there: repeated and faulty excerpts stay in"
        return published(root, [Listed(on_disk[key], (key.split("/")[0],), key) for key in on_disk], [note])
    files = []
    for split, name in _GTZAN_LISTS.items():
        for line in lines(existing(root, name)):
            key = line.rsplit(".", 1)[0]
            file = on_disk.pop(key, (audio.relative_to(root) / line).as_posix())
            files.append(Listed(file, (line.split("/")[0],), key, split))
    left_out = counted(
        on_disk, "{count} excerpts stand in no list, repeated or faulty, and are left out, as {examples}"
    )
    return published(root, files, [left_out])


def _fma(root: Path, options: ImportOptions) -> Listing:
    table = existing(root, "fma_metadata/tracks.csv", "tracks.csv")
    present = [subset for subset in _FMA_SUBSETS if (root / f"fma_{subset}").is_dir()]
    if not present:
        raise MissingPart(f"fma_small, fma_medium, fma_large or fma_full in {root}")
    subset = present[-1]
    wanted = _FMA_SUBSETS[: _FMA_SUBSETS.index(subset) + 1]
    files, without_genre = [], []
    for track, split, of_subset, artist, genre in _fma_tracks(table):
        if of_subset in wanted:
            name = track.zfill(6)
            file = f"fma_{subset}/{name[:3]}/{name}.mp3"
            files.append(Listed(file, (genre,) if genre else (), f"artist {artist}", split_value(split, str(table))))
            without_genre += [] if genre else [track]
    notes = counted(without_genre, "{count} tracks have no genre_top and no label, as {examples}")
    return published(root, files, [notes])


def _fma_tracks(table: Path) -> list[tuple[str, ...]]:
    """Track id, split, subset, artist and genre of every track: the table has three lines of header."""
    import pandas

    with table_of_text(str(table)), table.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = list(zip(next(reader, []), next(reader, []), strict=False))
    for column in _FMA_COLUMNS:
        if column not in header:
            raise ManifestError(f"{table} lacks the column {'.'.join(column)}; its header has three lines")
    places = [0, *map(header.index, _FMA_COLUMNS)]
    rows = pandas.read_csv(table, skiprows=3, header=None, usecols=places, dtype=str, keep_default_na=False)
    return list(rows[places].itertuples(index=False, name=None))


GTZAN = Importer(
    name="gtzan",
    title="GTZAN",
    expects=(
        "genres/blues/blues.00000.wav ... (or genres_original/, Data/genres_original/, or blues/ itself; or .au)\n"
        "train_filtered.txt, valid_filtered.txt, test_filtered.txt (optional: the fault-filtered split)"
    ),
    source="https://www.kaggle.com/datasets/andradaolteanu/gtzan-dataset-music-genre-classification; the lists: "
    "https://github.com/jongpillee/music_dataset_split",
    license="none stated; excerpts of published recordings",
    task="multi-class",
    group="excerpt; artists are not in the data, the lists separate them",
    split_note=(
        "the fault-filtered lists where present; otherwise dealt excerpt by excerpt, with the known repeats, "
        "mislabellings and the broken jazz.00054 still in"
    ),
    layout=_gtzan,
)
FMA = Importer(
    name="fma",
    title="FMA (small, medium, large, full)",
    expects=(
        "fma_metadata/tracks.csv\n"
        "fma_small/000/000002.mp3 ... (or fma_medium, fma_large, fma_full; the largest is read)"
    ),
    source="https://github.com/mdeff/fma",
    license="metadata CC BY 4.0; each track has a licence of its own",
    task="multi-class",
    group="artist",
    split_note="official training, validation (dev) and test of tracks.csv; the label is genre_top",
    layout=_fma,
)
