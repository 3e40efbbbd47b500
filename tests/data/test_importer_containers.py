"""Audio inside Parquet, Arrow and tar: what `datasets` and tarfile wrote comes out whole, and nothing else does."""

import errno
import gzip
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published import TREES, imported, text, write_noise

from sonar.data.audio import file_sha256
from sonar.data.importers import IMPORTERS, ImportOptions, Listing, unpack
from sonar.data.manifest import ManifestError, write_manifest

CLASSES = ["owl", "wren"]


@pytest.fixture
def sounds(tmp_path: Path) -> list[bytes]:
    return [write_noise(tmp_path / "sounds" / f"{number}.wav").read_bytes() for number in range(6)]


def hugging_face(audio: Sequence[bytes | None], **columns: tuple[Any, list[Any]]) -> Any:
    """A dataset of the library itself; a column is its feature and its values."""
    from datasets import Audio, Dataset, Features, disable_progress_bars

    disable_progress_bars()
    rows = [{"bytes": data, "path": f"{number}.wav"} for number, data in enumerate(audio)]
    made = Dataset.from_dict({"audio": rows} | {name: values for name, (_, values) in columns.items()})
    return made.cast(Features({"audio": Audio()} | {name: feature for name, (feature, _) in columns.items()}))


def read(name: str, path: Path, to: Path | None, **columns: str) -> Listing:
    return IMPORTERS[name].read(path, ImportOptions(extract_to=to, columns=columns))


def bytes_of(listing: Listing) -> list[bytes]:
    return [(listing.root / item.file).read_bytes() for item in listing.files]


# --- Hugging Face


def test_parquet_and_save_to_disk_of_datasets_give_bytes_labels_and_splits(tmp_path: Path, sounds: list[bytes]) -> None:
    from datasets import ClassLabel, DatasetDict, List

    tags = List(ClassLabel(names=CLASSES))
    parts = {
        "train": hugging_face(sounds[:3], tags=(tags, [[0, 1], [1], []])),
        "validation": hugging_face(sounds[3:4], tags=(tags, [[0]])),
        "test": hugging_face(sounds[4:], tags=(tags, [[1], [0]])),
    }
    for name, part in parts.items():
        part.to_parquet(tmp_path / "parquet" / f"{name}.parquet")
    saved = DatasetDict(parts)
    saved.save_to_disk(tmp_path / "saved")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "saved" / "train" / "cache-1234.arrow")  # what `map` leaves there
    for stored in ("parquet", "saved"):
        listing = read("huggingface", tmp_path / stored, tmp_path / "out", label="tags")
        by_split = dict(zip(bytes_of(listing), listing.files, strict=True))
        assert [by_split[data].split for data in sounds] == [*["train"] * 3, "dev", *["test"] * 2]
        assert [by_split[data].labels for data in sounds] == [
            ("owl", "wren"), ("wren",), (), ("owl",), ("wren",), ("owl",),
        ]  # fmt: skip
        assert listing.notes == (f"1 clips have no label, as {by_split[sounds[2]].file}",)


def test_a_dataset_that_is_all_train_is_dealt(tmp_path: Path, sounds: list[bytes]) -> None:
    hugging_face(sounds).to_parquet(tmp_path / "p" / "train-00000-of-00001.parquet")
    found = imported("huggingface", tmp_path / "p", ImportOptions(extract_to=tmp_path / "out"))
    assert {clip.split for clip in found.clips} == {"train", "dev", "test"}
    notes = read("huggingface", tmp_path / "p", tmp_path / "out").notes
    assert "no official split for dev and test: dealt from the training part, by group" in notes


def test_label_columns_are_found_by_type_by_name_or_by_choice(tmp_path: Path, sounds: list[bytes]) -> None:
    from datasets import ClassLabel, Value

    kind, text_ = ClassLabel(names=CLASSES), Value("string")

    def labels(columns: dict[str, tuple[Any, list[Any]]], **chosen: str) -> list[tuple[str, ...]]:
        hugging_face(sounds[:2], **columns).to_parquet(tmp_path / "p" / "a.parquet")
        return [item.labels for item in read("huggingface", tmp_path / "p", tmp_path / "out", **chosen).files]

    assert labels({"species": (kind, [1, -1])}) == [("wren",), ()]
    assert labels({"label": (text_, ["rook", None])}) == [("rook",), ()]
    assert labels({"label": (Value("int64"), [7, 8])}) == [("7",), ("8",)]
    two = {"species": (kind, [1, 0]), "sex": (ClassLabel(names=["m", "f"]), [0, 1])}
    assert labels(two, label="sex") == [("m",), ("f",)]
    with pytest.raises(ValueError, match=r"a.parquet has the classes species, sex; choose: --column label=species"):
        labels(two)
    with pytest.raises(ValueError, match=r"column label=kind: a.parquet has audio, species, sex; fields are audio"):
        labels(two, label="kind")
    assert labels({"label": (Value("float64"), [0.5, None])}) == [()]  # a number is no class: that row is refused


def test_a_row_without_bytes_is_quarantined_and_the_others_survive(tmp_path: Path, sounds: list[bytes]) -> None:
    rows = [{"bytes": data, "path": f"{number}.wav"} for number, data in enumerate([sounds[0], None, sounds[1]])]
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"audio": pa.array([*rows, None])}), tmp_path / "p" / "a.parquet")
    listing = read("huggingface", tmp_path / "p", tmp_path / "out")
    assert bytes_of(listing) == sounds[:2]
    assert [(bad.path, bad.reason, bad.kind) for bad in listing.refused] == [
        ("a.parquet:1", "no bytes in the table, only the path 1.wav", "missing"),
        ("a.parquet:3", "no bytes in the table, only the path None", "missing"),
    ]


def test_a_broken_table_is_quarantined_and_the_others_survive(tmp_path: Path, sounds: list[bytes]) -> None:
    for name in ("a", "b"):
        hugging_face(sounds[:2]).to_parquet(tmp_path / "p" / f"{name}.parquet")
    whole = (tmp_path / "p" / "a.parquet").read_bytes()
    (tmp_path / "p" / "a.parquet").write_bytes(whole[: len(whole) // 2])
    listing = read("huggingface", tmp_path / "p", tmp_path / "out")
    assert [item.group for item in listing.files] == ["b.parquet:0", "b.parquet:1"]
    assert [bad.path for bad in listing.refused] == ["a.parquet"]
    assert listing.refused[0].reason.startswith("the table is broken at row 0: ")


@pytest.fixture
def damaged(tmp_path: Path, sounds: list[bytes]) -> Path:
    """Two row groups, of eight rows and one; of the last one the compressed page is not what was written."""
    rows = [{"bytes": data, "path": "a.wav"} for data in (*[sounds[0]] * 8, b"\0" * 10_000)]
    path = tmp_path / "p" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"audio": rows}), path, compression="snappy", use_dictionary=False, row_group_size=8)
    begin = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[begin + 60 : begin + 200] = b"\xff" * 140
    path.write_bytes(content)
    return path.parent


def test_a_damaged_page_costs_what_follows_and_not_the_rows_before_it(
    damaged: Path, tmp_path: Path, sounds: list[bytes]
) -> None:
    listing = read("huggingface", damaged, tmp_path / "out")
    assert bytes_of(listing) == [sounds[0]] * 8
    assert [bad.path for bad in listing.refused] == ["a.parquet"]
    assert listing.refused[0].reason.startswith("the table is broken at row 8: ")


def test_what_the_system_refuses_is_no_fault_of_a_table(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "no space left on device")

    def fail(*_: object, **__: object) -> None:
        raise full

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr("sonar.data.importers.unpack.write_whole_file", fail)
        read("huggingface", damaged, tmp_path / "out")
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    with pytest.raises(OSError, match="no space left"):
        read("huggingface", damaged, tmp_path / "out")


@pytest.mark.parametrize("name", ["../../../evil.wav", "/etc/evil.wav", "..", "a\0b.wav", "x" * 300 + ".wav", ""])
def test_names_inside_a_table_decide_on_no_path(tmp_path: Path, sounds: list[bytes], name: str) -> None:
    rows = pa.array([{"bytes": sounds[0], "path": name}])
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"audio": rows}), tmp_path / "p" / "a.parquet")
    before = files_below(tmp_path)
    listing = read("huggingface", tmp_path / "p", tmp_path / "out")
    made = files_below(tmp_path) - before
    assert made == {f"out/{item.file}" for item in listing.files}
    assert bytes_of(listing) == sounds[:1]


def test_audio_in_a_container_asks_where_to_unpack(tmp_path: Path, sounds: list[bytes]) -> None:
    hugging_face(sounds).to_parquet(tmp_path / "p" / "a.parquet")
    with pytest.raises(ValueError, match=r"the audio lies inside a.parquet; say where to unpack it: --extract-to"):
        read("huggingface", tmp_path / "p", None)


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": 3}}', b"[" * 100_000])
def test_metadata_that_cannot_be_read_is_refused(tmp_path: Path, sounds: list[bytes], metadata: bytes) -> None:
    made = pa.table({"audio": pa.array([{"bytes": sounds[0], "path": "a"}])})
    (tmp_path / "p").mkdir()
    pq.write_table(made.replace_schema_metadata({"huggingface": metadata}), tmp_path / "p" / "a.parquet")
    with pytest.raises(ManifestError, match="what its metadata says under 'huggingface' cannot be read"):
        read("huggingface", tmp_path / "p", tmp_path / "out")


def test_a_table_without_audio_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"audio": ["a.wav"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=r"no table below .* has the audio column, of bytes and path: a.parquet"):
        read("huggingface", tmp_path, tmp_path / "out")
    with pytest.raises(ManifestError, match=r"no table below .* has the audio column"):
        read("huggingface", tmp_path, tmp_path / "out", audio="sound")


def test_a_manifest_beside_the_shards_is_no_shard(tmp_path: Path) -> None:
    tree = TREES["huggingface"](tmp_path)
    found = imported("huggingface", tree.path, tree.options)
    write_manifest(found.clips, tree.path / "m.parquet", root=tmp_path)
    listing = IMPORTERS["huggingface"].read(tree.path, tree.options)
    assert len(listing.files) == len(tree.files)
    assert "1 tables have no audio column and are left out, as m.parquet" in listing.notes


def test_a_saved_dataset_cannot_point_outside_its_folder(tmp_path: Path, sounds: list[bytes]) -> None:
    hugging_face(sounds).save_to_disk(tmp_path / "other")
    hugging_face(sounds).save_to_disk(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_data_files"] = [{"filename": "../other/data-00000-of-00001.arrow"}]
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="leads out of"):
        read("huggingface", tmp_path / "saved", tmp_path / "out")
    for content in ("{}", "[]", '{"_data_files": [3]}', '{"_data_files": [{}]}'):
        (tmp_path / "saved" / "state.json").write_text(content)
        with pytest.raises(ManifestError, match=r"state.json lacks _data_files"):
            read("huggingface", tmp_path / "saved", tmp_path / "out")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_audiofolder_with_a_table_is_listed(tmp_path: Path, suffix: str) -> None:
    rows = {"train/a.wav": ("owl", "s1"), "train/sub/b.wav": ("wren", "s2"), "test/c.wav": ("owl", "s3")}
    for part in ("train", "test"):
        inside = {name.removeprefix(f"{part}/"): row for name, row in rows.items() if name.startswith(part)}
        lines = {
            ".csv": ["file_name,label,bird", *(f"{name},{label},{bird}" for name, (label, bird) in inside.items())],
            ".jsonl": [
                json.dumps({"file_name": name, "label": label, "bird": bird}) for name, (label, bird) in inside.items()
            ],
        }
        text(tmp_path / part / f"metadata{suffix}", lines[suffix])
    listing = read("huggingface", tmp_path, None, group="bird")
    assert {item.file: (item.labels, item.group, item.split) for item in listing.files} == {
        name: ((label,), bird, "test" if name.startswith("test") else "") for name, (label, bird) in rows.items()
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 holds no object"),
        ('{"file_name": ""}', "row 1: file_name is ''; every row names a file"),
        ('{"file_name": "a.wav", "label": {}}', "row 1: its label or group is '{}'; it must be a text"),
    ],
)
def test_a_table_of_an_audiofolder_that_does_not_fit_is_refused(tmp_path: Path, line: str, message: str) -> None:
    text(tmp_path / "metadata.jsonl", [line])
    with pytest.raises(ManifestError, match=message):
        read("huggingface", tmp_path, None)


def test_class_folders_of_an_audiofolder_may_lie_in_folders_of_splits(tmp_path: Path) -> None:
    for name in ("train/owl/a.wav", "validation/owl/b.wav", "test/wren/c.wav"):
        write_noise(tmp_path / "split" / name)
    for name in ("train/a.wav", "dog/b.wav"):  # the sound of a train
        write_noise(tmp_path / "classes" / name)
    found = {item.file: (item.labels, item.split) for item in read("huggingface", tmp_path / "split", None).files}
    assert found == {
        "train/owl/a.wav": (("owl",), "train"),
        "validation/owl/b.wav": (("owl",), "dev"),
        "test/wren/c.wav": (("wren",), "test"),
    }
    found = {item.file: (item.labels, item.split) for item in read("huggingface", tmp_path / "classes", None).files}
    assert found == {"train/a.wav": (("train",), ""), "dog/b.wav": (("dog",), "")}


# --- WebDataset

Add = Callable[..., None]


def make_tar(path: Path, add: Callable[[Add], None], mode: str = "w") -> Path:
    """A tar whose members `add` gives: name, bytes, and what else its header says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:

        def member(name: str, data: bytes = b"", **header: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in header.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

        add(member)
    return path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_samples_of_a_tar_give_bytes_and_labels(tmp_path: Path, sounds: list[bytes], mode: str) -> None:
    def add(member: Add) -> None:
        member("x", type=tarfile.DIRTYPE)
        member("x/0.wav", sounds[0])
        member("x/0.cls", b"3\n")
        member("x/1.json", json.dumps({"species": ["owl", "wren"], "bird": 12}).encode())
        member("x/1.wav", sounds[1])
        member("x/2.txt", b"rook")
        member("x/2.left.wav", sounds[2])
        member("x/2.right.wav", sounds[3])
        member("x/2.jpg", b"a picture")
        member("y/2.wav", sounds[4])
        member("y/3.json", b'{"species": 0}')
        member("y/3.wav", sounds[5])

    suffix = {"w": ".tar", "w:gz": ".tar.gz", "w:xz": ".tar.xz"}[mode]
    tar = make_tar(tmp_path / "data" / f"a{suffix}", add, mode)
    for path in (tar, tar.parent):
        listing = read("webdataset", path, tmp_path / "out", label="species", group="bird")
        assert bytes_of(listing) == sounds
        labels = [item.labels for item in listing.files]
        assert labels == [("3",), ("owl", "wren"), ("rook",), ("rook",), (), ("0",)]
        groups = [item.group for item in listing.files]
        assert groups == [f"{tar.name}:x/0", "12", *[f"{tar.name}:x/2"] * 2, f"{tar.name}:y/2", f"{tar.name}:y/3"]
        assert listing.notes == (
            "1 members are neither audio nor labels, as .jpg",
            f"1 clips have no label, as {listing.files[4].file}",
        )


HOSTILE: dict[str, tuple[str, dict[str, Any], str]] = {  # name, header, and the reason to refuse it
    "parent": ("../../evil.wav", {}, "a path with .."),
    "inner parent": ("a/../../evil.wav", {}, "a path with .."),
    "absolute": ("/tmp/evil.wav", {}, "an absolute path"),
    "symbolic link": ("l.wav", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link to /etc/passwd"),
    "hard link": ("h.wav", {"type": tarfile.LNKTYPE, "linkname": "good.wav"}, "a link to good.wav"),
    "device": ("d.wav", {"type": tarfile.CHRTYPE}, "a device, pipe or sparse file"),
    "pipe": ("p.wav", {"type": tarfile.FIFOTYPE}, "a device, pipe or sparse file"),
    "label too long": ("z.json", {}, "1048577 bytes; at most 1048576 are read"),
}


def test_hostile_members_are_quarantined_and_write_nothing(tmp_path: Path, sounds: list[bytes]) -> None:
    def add(member: Add) -> None:
        member("good.wav", sounds[0])
        for kind, (name, header, _) in HOSTILE.items():
            data = b" " * (2**20 + 1) if kind == "label too long" else b"" if header else sounds[1]
            member(name, data, **header)
        member("last.wav", sounds[2])

    make_tar(tmp_path / "data" / "a.tar", add)
    before = files_below(tmp_path)
    listing = read("webdataset", tmp_path / "data", tmp_path / "out")
    assert bytes_of(listing) == [sounds[0], sounds[2]]
    assert [(bad.path, bad.reason) for bad in listing.refused] == [
        (f"a.tar:{name}", reason) for name, _, reason in HOSTILE.values()
    ]
    assert files_below(tmp_path) - before == {f"out/{item.file}" for item in listing.files}
    with pytest.raises(ValueError, match=r"8 of 10 files of .* are unusable \(allowed: 0%\): a.tar:../../evil.wav"):
        imported("webdataset", tmp_path / "data", ImportOptions(extract_to=tmp_path / "out"))


def test_audio_beyond_the_limit_is_refused_unread(
    tmp_path: Path, sounds: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonar.data.importers.webdataset.MAX_AUDIO_BYTES", len(sounds[0]) - 1)
    make_tar(tmp_path / "a.tar", lambda member: member("a.wav", sounds[0]))
    listing = read("webdataset", tmp_path / "a.tar", tmp_path / "out")
    assert listing.files == []
    assert listing.refused[0].reason == f"{len(sounds[0])} bytes; at most {len(sounds[0]) - 1} are read"
    monkeypatch.setattr("sonar.data.importers.unpack.MAX_AUDIO_BYTES", len(sounds[0]) - 1)
    hugging_face(sounds[:1]).to_parquet(tmp_path / "p" / "a.parquet")
    listing = read("huggingface", tmp_path / "p", tmp_path / "out")
    assert listing.refused[0].reason.startswith(f"more than {len(sounds[0]) - 1} bytes")
    assert not (tmp_path / "out").exists()


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, sounds: list[bytes]) -> None:
    def add(member: Add) -> None:
        member("a.wav", sounds[0])
        member("././@LongLink", bytes(50 * 2**20), type=tarfile.GNUTYPE_LONGNAME)
        member("b.wav", sounds[1])

    make_tar(tmp_path / "a.tar.gz", add, "w:gz")
    tracemalloc.start()
    listing = read("webdataset", tmp_path, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bytes_of(listing) == sounds[:1]
    assert listing.refused[0].reason == "the tar is broken: a header of 52428800 bytes; at most 1048576 are read"
    assert peak < 40 * 2**20  # what one read of compressed bytes unfolds to, and not the header


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_is_cut_off_keeps_its_whole_samples(tmp_path: Path, sounds: list[bytes], mode: str) -> None:
    noise = [os.urandom(20_000) for _ in range(4)]
    tar = make_tar(tmp_path / "a.tar", lambda member: [member(f"{n}.wav", data) for n, data in enumerate(noise)], mode)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    listing = read("webdataset", tar, tmp_path / "out")
    assert bytes_of(listing) == noise[: len(listing.files)]
    assert 1 <= len(listing.files) <= 2
    assert [bad.reason.startswith("the tar is broken: ") for bad in listing.refused] == [True]


@pytest.mark.parametrize("content", [b"no tar at all" * 100, gzip.compress(b"no tar at all" * 100)])
def test_what_is_no_tar_is_quarantined(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    listing = read("webdataset", tmp_path, tmp_path / "out")
    assert listing.files == []
    assert [(bad.path, bad.reason[:18]) for bad in listing.refused] == [("a.tar", "the tar is broken:")]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json", b"{", "its label cannot be read: "),
        ("a.json", b"[" * 100_000, "its label cannot be read: "),
        ("a.json", b"[1]", "its .json holds no object"),
        ("a.json", b'{"label": {"x": 1}}', "its label or group is "),
        ("a.json", b'{"label": [["x"]]}', "its label or group is "),
        ("a.json", b'{"group": 0.5}', "its label or group is "),
        ("a.cls", b"\xff\xfe", "its label cannot be read: "),
    ],
)
def test_a_sample_whose_label_cannot_be_read_is_quarantined(
    tmp_path: Path, sounds: list[bytes], name: str, data: bytes, reason: str
) -> None:
    def add(member: Add) -> None:
        member("a.wav", sounds[0])
        member(name, data)
        member("b.wav", sounds[1])

    listing = read("webdataset", make_tar(tmp_path / "a.tar", add), tmp_path / "out")
    assert bytes_of(listing) == [sounds[1]]
    assert [(bad.path, bad.reason.startswith(reason)) for bad in listing.refused] == [("a.tar:a", True)]


def test_a_label_without_audio_is_quarantined(tmp_path: Path, sounds: list[bytes]) -> None:
    def add(member: Add) -> None:
        member("a.json", b"{}")
        member("b.wav", sounds[0])
        member("c.cls", b"1")

    listing = read("webdataset", make_tar(tmp_path / "a.tar", add), tmp_path / "out")
    assert bytes_of(listing) == sounds[:1]
    assert [(bad.path, bad.reason, bad.kind) for bad in listing.refused] == [
        (f"a.tar:{key}", "no audio of a known kind beside its label", "missing") for key in "ac"
    ]


def test_a_field_that_webdataset_does_not_know_is_refused(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", lambda member: None)
    with pytest.raises(ValueError, match=r"webdataset reads label and group from .json, not file"):
        read("webdataset", tmp_path, tmp_path / "out", file="x")


# --- both


@pytest.mark.parametrize("corpus", ["huggingface", "webdataset"])
def test_unpacking_again_keeps_whole_files_and_repairs_others(corpus: str, tmp_path: Path) -> None:
    tree = TREES[corpus](tmp_path)
    first = IMPORTERS[corpus].read(tree.path, tree.options)
    paths = [first.root / item.file for item in first.files]
    hashes = [file_sha256(path) for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])  # as a copy that was cut off
    paths[2].write_bytes(bytes(paths[2].stat().st_size))
    kept = {path: path.stat().st_ino for path in paths[3:]}
    assert IMPORTERS[corpus].read(tree.path, tree.options) == first
    assert [file_sha256(path) for path in paths] == hashes
    assert {path: path.stat().st_ino for path in paths[3:]} == kept


def test_unpacking_into_the_dataset_itself_can_be_repeated(tmp_path: Path) -> None:
    for corpus in ("huggingface", "webdataset"):
        tree = TREES[corpus](tmp_path / corpus)
        inside = ImportOptions(columns=tree.options.columns, extract_to=tree.path)
        first = IMPORTERS[corpus].read(tree.path, inside)
        assert IMPORTERS[corpus].read(tree.path, inside) == first
        assert {item.file for item in first.files} == tree.files.keys()


@given(st.text(), st.integers(0, 10**7), st.text())
def test_a_place_is_relative_unique_in_its_container_and_made_of_harmless_names(
    container: str, number: int, key: str
) -> None:
    parts = unpack.place(container, number, key).split("/")
    assert all(part and not part.startswith(".") and len(part) <= 100 for part in parts)
    assert all(char.isascii() and (char.isalnum() or char in "._-") for part in parts for char in part)
    assert unpack.place(container, number, key) != unpack.place(container, number + 1, key)


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"RIFF....WAVE", ".wav"),
        (b"fLaC", ".flac"),
        (b"OggS", ".ogg"),
        (b"ID3\x04", ".mp3"),
        (b"\xff\xfb\x90\x00", ".mp3"),
        (b"FORM....AIFF", ".aiff"),
        (b"#!/bin/sh", ".bin"),
        (b"", ".bin"),
    ],
)
def test_the_suffix_follows_from_the_content(tmp_path: Path, head: bytes, suffix: str) -> None:
    with unpack.Unpacker(tmp_path) as unpacker:
        assert unpacker.put(io.BytesIO(head), "a/b") == f"a/b{suffix}"
    assert (tmp_path / f"a/b{suffix}").read_bytes() == head


def test_a_file_that_cannot_be_written_ends_the_import(tmp_path: Path, sounds: list[bytes]) -> None:
    make_tar(tmp_path / "a.tar", lambda member: [member(f"{n}.wav", data) for n, data in enumerate(sounds)])
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        read("webdataset", tmp_path / "a.tar", tmp_path / "out")


def test_an_interrupted_import_leaves_whole_files_only(
    tmp_path: Path, sounds: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tar(tmp_path / "a.tar", lambda member: [member(f"{n}.wav", data) for n, data in enumerate(sounds)])
    with monkeypatch.context() as patch:
        patch.setattr("sonar.data.importers.webdataset.place", _until(3, unpack.place))
        with pytest.raises(KeyboardInterrupt):
            read("webdataset", tmp_path / "a.tar", tmp_path / "out")
    written = [path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.wav"))]
    assert all(data in sounds[:3] for data in written)
    assert bytes_of(read("webdataset", tmp_path / "a.tar", tmp_path / "out")) == sounds


def _until(number: int, place: Callable[..., str]) -> Callable[..., str]:
    calls = iter(range(number))

    def counted(*arguments: Any) -> str:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return place(*arguments)

    return counted
