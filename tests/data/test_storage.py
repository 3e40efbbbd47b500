import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from sonar.data.audio import AudioError, decode_audio, file_sha256, probe_audio
from sonar.data.corpora import load_corpus, scan_corpus
from sonar.data.manifest import Clip, ManifestError, manifest_hash, read_manifest, write_manifest
from sonar.data.recording import decode_clip
from sonar.data.scan import ScanOptions, ScanProgress
from sonar.data.storage import (
    PathError,
    StorageError,
    as_root,
    contained,
    exists,
    join,
    list_files,
    name_of,
    parent_of,
    read_bytes,
    relative,
    stat,
    write_bytes,
)

Write = Callable[..., Path]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def corpus(tmp_path: Path, write_audio: Write) -> Path:
    for number in range(6):
        write_audio(f"birds/{'ab'[number % 2]}/{number}.wav", seconds=0.1, sample_rate=22_050)
    return tmp_path / "birds"


@pytest.fixture
def table(corpus: Path) -> Path:
    rows = [f"{path.relative_to(corpus).as_posix()},{path.parent.name}" for path in sorted(corpus.rglob("*.wav"))]
    (corpus / "metadata.csv").write_text("\n".join(["file,label", *rows]))
    return corpus


def zipped(folder: Path) -> str:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return f"zip://{folder.name}::{archive}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The test's folder over HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ends(url: str, progress: list[ScanProgress], record: Path | None = None) -> list[Clip]:
    options = ScanOptions(record=record, report=progress.append, workers=1)
    clips, quarantine = load_corpus(url, domain="bio", options=options)
    assert quarantine == ()
    return clips


@pytest.mark.parametrize("kind", ["zip", "http"])
def test_a_corpus_at_a_url_is_the_corpus_that_it_is_on_disk(
    table: Path, tmp_path: Path, served: str, kind: str
) -> None:
    local = ends(str(table), [])
    url = zipped(table) if kind == "zip" else f"{served}/birds"
    clips = ends(url, [])
    assert manifest_hash(clips) == manifest_hash(local)
    for clip, same in zip(clips, local, strict=True):
        assert clip.path == join(url, relative(same.path, str(table)))
        assert file_sha256(clip.path) == same.sha256
        assert probe_audio(clip.path) == probe_audio(same.path)
        assert np.array_equal(decode_clip(clip.path, 0.0, 0.1), decode_clip(same.path, 0.0, 0.1))
    manifest = tmp_path / "lists" / "m.parquet"
    write_manifest(clips, manifest, root=url)
    assert read_manifest(manifest, root=url) == clips
    assert read_manifest(manifest, root=table) == local
    assert scan_corpus(manifest, domain="", root=url, options=ScanOptions(workers=1)).clips == clips


@pytest.mark.parametrize("kind", ["zip", "http"])
def test_class_folders_at_a_url_are_listed(corpus: Path, served: str, kind: str) -> None:
    (corpus / "notes.txt").write_text("no audio")
    (corpus / "a" / "._0.wav").write_text("left by a Mac")
    url = zipped(corpus) if kind == "zip" else f"{served}/birds"
    assert manifest_hash(ends(url, [])) == manifest_hash(ends(str(corpus), []))


def test_a_manifest_is_written_to_and_read_from_a_url(corpus: Path, make_clip: Callable[..., Clip]) -> None:
    clip = make_clip(path="memory://store/c/a.wav")
    for suffix in (".csv", ".parquet"):
        write_manifest([clip], f"memory://store/m{suffix}")
        assert read_manifest(f"memory://store/m{suffix}") == [clip]
    with pytest.raises(ManifestError, match=r"memory://store/c/a.wav lies outside memory://else; write the manifest"):
        write_manifest([clip], "memory://else/m.csv")
    with pytest.raises(FileNotFoundError, match=r"no manifest at memory://store/none.csv"):
        read_manifest("memory://store/none.csv")


@pytest.mark.parametrize("kind", ["zip", "http"])
def test_a_rescan_of_a_url_reads_what_changed(table: Path, tmp_path: Path, served: str, kind: str) -> None:
    progress: list[ScanProgress] = []
    record = tmp_path / "r.jsonl"
    url = zipped(table) if kind == "zip" else f"{served}/birds"
    ends(url, progress, record)
    ends(url, progress, record)
    assert progress[-1].read == 0
    (table / "a" / "0.wav").write_bytes((table / "b" / "1.wav").read_bytes() + b"\0")
    if kind == "zip":
        zipped(table)
    ends(url, progress, record)
    assert progress[-1].read == 1


def test_what_is_missing_at_a_url_is_quarantined_and_asked_for_again(table: Path, tmp_path: Path, served: str) -> None:
    (table / "a" / "0.wav").rename(tmp_path / "away.wav")
    record = tmp_path / "r.jsonl"
    options = ScanOptions(record=record, workers=1)
    _, (bad,) = scan_corpus(f"{served}/birds", domain="bio", options=options)
    assert (bad.path, bad.reason, bad.kind) == (f"{served}/birds/a/0.wav", "no such file", "missing")
    with pytest.raises(AudioError, match="no such file"):
        decode_audio(bad.path)
    (tmp_path / "away.wav").rename(table / "a" / "0.wav")
    assert not scan_corpus(f"{served}/birds", domain="bio", options=options).quarantine


@pytest.mark.parametrize(
    "file",
    ["/etc/passwd", "../a.wav", "a/../../b.wav", "%2e%2e/a.wav", "%252e%252e/a.wav", "a\\..\\b.wav", "x::file:///etc/passwd",
     "http://elsewhere/a.wav", "file:///etc/passwd"],
)  # fmt: skip
@pytest.mark.parametrize("root", ["http://host/corpus", "s3://bucket/corpus", "zip://corpus::/data/x.zip"])
def test_a_path_out_of_a_url_is_refused(file: str, root: str) -> None:
    with pytest.raises(PathError, match=r"is absolute; give it relative|leads out of"):
        contained(file, root)


def test_a_row_of_a_remote_table_that_leads_out_is_quarantined_unread(table: Path) -> None:
    with (table / "metadata.csv").open("a") as file:
        file.write("\n../birds.zip,x\nfile:///etc/hostname,x")
    _, quarantine = scan_corpus(zipped(table), domain="bio", options=ScanOptions(workers=1))
    assert [(bad.kind, bad.sha256) for bad in quarantine] == [("outside", "")] * 2


def test_paths_below_a_root_are_joined_and_taken_apart() -> None:
    for root, path in (
        ("s3://bucket/corpus", "s3://bucket/corpus/a/b.wav"),
        ("s3://bucket", "s3://bucket/a/b.wav"),
        ("zip://corpus::/data/x.zip", "zip://corpus/a/b.wav::/data/x.zip"),
        ("zip://::/data/x.zip", "zip://a/b.wav::/data/x.zip"),
    ):
        assert contained("a/b.wav", root) == join(root, "a/b.wav") == path
        assert relative(path, root) == "a/b.wav"
        assert parent_of(parent_of(path)).rstrip("/") == root
    with pytest.raises(PathError, match="s3://bucket/corpus2/a lies outside s3://bucket/corpus"):
        relative("s3://bucket/corpus2/a", "s3://bucket/corpus")
    names = {name_of(root) for root in ("s3://b/corpus/", "zip://corpus::/x.zip", "/data/corpus", "http://h/corpus")}
    assert names == {"corpus"}
    assert name_of("zip://::/data/x.zip") == "x.zip"


def test_a_url_of_a_local_file_is_its_path(tmp_path: Path) -> None:
    assert as_root(f"file://{tmp_path}") == str(tmp_path)


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/c", "zip://c::https://user:secret@host/x.zip"])
def test_a_password_in_a_url_is_refused_and_never_shown(url: str) -> None:
    for function in (as_root, exists, list_files, read_bytes, stat):
        with pytest.raises(PathError, match=r"\*\*\*@.* carries a password; give it by the environment") as raised:
            function(url)
        assert "secret" not in str(raised.value)
    with pytest.raises(PathError) as raised:
        load_corpus(url, domain="bio")
    assert "secret" not in str(raised.value)
    with pytest.raises(PathError, match=r"^http://h/c has a query or a fragment; give the address of a folder"):
        as_root("http://h/c?token=secret")


def test_a_storage_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nosuch://x/y: Protocol not known: nosuch"):
        exists("nosuch://x/y")
    (tmp_path / "x.zip").write_text("no archive")
    with pytest.raises(StorageError, match=r"x.zip: File is not a zip file"):
        list_files(f"zip://::{tmp_path}/x.zip")
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9/a: Cannot connect"):
        read_bytes("http://127.0.0.1:9/a")


def test_a_remote_file_that_is_too_large_to_hold_is_refused(tmp_path: Path, served: str) -> None:
    write_bytes("memory://m/a.bin", bytes(2_000_000))
    (tmp_path / "a.bin").write_bytes(bytes(2_000_000))
    for url in ("memory://m/a.bin", f"{served}/a.bin"):
        assert len(read_bytes(url, max_bytes=2_000_000)) == 2_000_000
        with pytest.raises(StorageError, match=r"a.bin holds more than 1 MB: too much to hold in memory"):
            read_bytes(url, max_bytes=2**20)


def test_a_storage_without_versions_is_never_taken_for_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes("memory://m/v.bin", b"1")
    assert stat("memory://m/v.bin").stamp
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "info", lambda self, path: {"name": path, "size": 1, "type": "file"})
    assert stat("memory://m/v.bin") == (1, "")
