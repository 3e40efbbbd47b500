import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.listing import list_folder
from sonar.data.manifest import SCHEMA, Clip, ManifestError, manifest_hash, read_manifest, write_manifest

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
LABEL = TEXT.filter(lambda text: ";" not in text)
CLIPS = st.builds(
    Clip,
    clip_id=TEXT,
    path=st.sampled_from(["a.wav", "sub/b.flac", "sub/ü c.ogg"]),
    start_s=st.floats(0, 1e4),
    duration_s=st.floats(1e-3, 1e4),
    sample_rate=st.integers(1, 500_000),
    channels=st.integers(1, 8),
    corpus=TEXT,
    domain=TEXT,
    labels=st.lists(LABEL, max_size=3).map(tuple),
    group=TEXT,
    split=st.sampled_from(["train", "dev", "test"]),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)
MANIFESTS = st.lists(CLIPS, min_size=1, max_size=6, unique_by=lambda clip: clip.clip_id)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@settings(max_examples=30, deadline=None)
@given(clips=MANIFESTS)
def test_what_was_written_is_read(suffix: str, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("m")
    placed = [clip._replace(path=str(root / clip.path)) for clip in clips]
    write_manifest(placed, root / f"m{suffix}")
    assert read_manifest(root / f"m{suffix}") == placed
    assert os.listdir(root) == [f"m{suffix}"]


@given(clips=MANIFESTS, seed=st.integers(0, 99))
def test_the_hash_knows_the_content_and_not_the_order_or_the_place(clips: list[Clip], seed: int) -> None:
    shuffled = [clip._replace(path=f"/else/{clip.path}") for clip in clips]
    random.Random(seed).shuffle(shuffled)
    assert manifest_hash(shuffled) == manifest_hash(clips)
    assert manifest_hash([*clips[1:], clips[0]._replace(channels=clips[0].channels + 1)]) != manifest_hash(clips)
    assert manifest_hash(clips[1:]) != manifest_hash(clips)


def write_csv(manifest: Path, clip: Clip, **values: str) -> Path:
    row = {**clip._asdict(), "path": "a.wav", "labels": ";".join(clip.labels), **values}
    manifest.write_text(",".join(row) + "\n" + ",".join(str(value) for value in row.values()) + "\n")
    return manifest


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("split", "valid", "one of train, dev, test"),
        ("duration_s", "0", "a number of seconds > 0"),
        ("duration_s", "inf", "a number of seconds > 0"),
        ("start_s", "-1", "a number of seconds >= 0"),
        ("start_s", "nan", "a number of seconds >= 0"),
        ("sample_rate", "16k", "a whole number >= 1"),
        ("channels", "0", "a whole number >= 1"),
        ("sha256", "abc", "64 lower-case hex digits"),
        ("clip_id", "", "a text that is not empty"),
        ("group", "", "a text that is not empty"),
    ],
)
def test_an_error_names_file_row_column_and_what_is_allowed(
    tmp_path: Path, make_clip: Callable[..., Clip], column: str, value: str, allowed: str
) -> None:
    path = write_csv(tmp_path / "m.csv", make_clip(), **{column: value})
    with pytest.raises(ManifestError, match=f"m.csv, row 1: {column} is {value!r}; it must be {allowed}"):
        read_manifest(path)


def test_a_text_in_a_number_column_of_parquet_is_named(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    row = make_clip()._asdict() | {"labels": "x", "path": "a.wav"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="row 1: labels is 'x'; it must be a list of texts"):
        read_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.wav", "sub/../../a.wav", "link/a.wav"])
def test_a_path_out_of_the_root_is_refused(tmp_path: Path, make_clip: Callable[..., Clip], path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ManifestError, match=r"row 1: path .* (is absolute|leads out of)"):
        read_manifest(write_csv(root / "m.csv", make_clip(), path=path))


def test_another_root_can_be_named(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(path=str(tmp_path / "audio" / "a.wav"))
    manifest = tmp_path / "lists" / "m.csv"
    write_manifest([clip], manifest, root=tmp_path / "audio")
    assert read_manifest(manifest, root=tmp_path / "audio") == [clip]
    with pytest.raises(ManifestError, match="lies outside"):
        write_manifest([clip], manifest)


def test_missing_file_column_and_content_are_named(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    with pytest.raises(FileNotFoundError, match="sonar data scan"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "short.csv").write_text("clip_id,path\na,a.wav\n")
    with pytest.raises(ManifestError, match="lacks the columns start_s"):
        read_manifest(tmp_path / "short.csv")
    (tmp_path / "ragged.csv").write_text(",".join(Clip._fields) + "\na,b\n")
    with pytest.raises(ManifestError, match="row 1 does not have one value for each column"):
        read_manifest(tmp_path / "ragged.csv")
    (tmp_path / "none.parquet").write_text("no parquet")
    with pytest.raises(ManifestError, match="no Parquet file"):
        read_manifest(tmp_path / "none.parquet")
    pq.write_table(SCHEMA.empty_table(), tmp_path / "empty.parquet")
    with pytest.raises(ManifestError, match="holds no clip"):
        read_manifest(tmp_path / "empty.parquet")
    with pytest.raises(ManifestError, match=r"ends in \.csv or \.parquet"):
        write_manifest([make_clip(path=str(tmp_path / "a"))], tmp_path / "m.json")


def test_a_clip_id_that_stands_twice_is_named(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    write_manifest([make_clip(path=str(tmp_path / "a.wav"))] * 2, tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"row 2: clip_id 'c/a.wav' stands in row 1 already"):
        read_manifest(tmp_path / "m.csv")


def test_a_label_that_csv_cannot_hold_is_refused(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(path=str(tmp_path / "a.wav"), labels=("a;b",))
    with pytest.raises(ManifestError, match=r"label 'a;b' holds ';'; write the manifest as .parquet"):
        write_manifest([clip], tmp_path / "m.csv")
    write_manifest([clip], tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet")[0].labels == ("a;b",)


@pytest.mark.parametrize("content", [b"clip_id,path\nc,\xff\n", b"clip_id,path\nc," + b"x" * 200_000 + b"\n"])
def test_what_is_no_table_of_text_is_named(tmp_path: Path, content: bytes) -> None:
    for name, read in (("m.csv", read_manifest), ("metadata.csv", lambda path: list_folder(path.parent))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ManifestError, match=f"{name} is no table of text: "):
            read(tmp_path / name)
