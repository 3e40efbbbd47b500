"""Shards in folders, behind URLs, copied, read by `datasets`, and with bytes that changed."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from stores import write_clips

from sonar.cli.app import app
from sonar.data import shard_cache
from sonar.data.audio import decode_audio
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip, write_manifest
from sonar.data.shard_cache import local_shards
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_summary import read_summary, verify_shards
from sonar.data.shard_view import shards_without
from sonar.data.shards import write_shards
from sonar.data.stream import ClipStore

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Clip], Path]:
    """Six clips of two classes, and their shards."""
    root = tmp_path_factory.mktemp("places")
    rng = np.random.default_rng(0)
    for number in range(6):
        path = root / "corpus" / "ab"[number % 2] / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(3_000 + number), 16_000)
    clips = load_corpus(root / "corpus", domain="bio").clips
    return clips, write_clips(root / "shards", clips)


@pytest.fixture
def shards(made: tuple[list[Clip], Path], tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made[1], tmp_path / "shards"))


@pytest.fixture(params=["", "file://", "fsspec+file://", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder to write: a path, URLs of pyarrow, and one that only fsspec knows."""
    return str(request.param) + str(tmp_path / "out")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_filesystem_gets_the_same_bytes(made: tuple[list[Clip], Path], place: str) -> None:
    clips, folder = made
    write_clips(place, clips)
    written = ShardFolder(place)
    assert {name: written.read(name) for name in written.sizes()} == files_of(folder)
    assert verify_shards(ShardFolder(place)) == []


def test_remote_shards_are_copied_once_and_read_as_local_ones(
    made: tuple[list[Clip], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONAR_CACHE", str(tmp_path / "cache"))
    here, there = ClipStore(made[1]), ClipStore(f"fsspec+file://{made[1]}")
    assert there.source == f"fsspec+file://{made[1]}" and there.folder.parent == tmp_path / "cache"
    assert list(there.clips) == list(here.clips)
    for row in range(len(here)):
        assert np.array_equal(there.waveform(row), here.waveform(row))
    monkeypatch.setattr(shard_cache, "_copy", None)
    assert local_shards(f"fsspec+file://{made[1]}") == there.folder
    assert local_shards(f"file://{made[1]}") == made[1]


def test_a_copy_is_whole_or_absent(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, cache = f"fsspec+file://{shards}", tmp_path / "cache"
    victim = next(shards.rglob("*.parquet"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{victim.name} is damaged: its sha256 is not the one"):
        local_shards(url, cache)
    assert [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] == []
    victim.write_bytes(whole)
    free = shutil.disk_usage(tmp_path)._replace(free=1_000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free)
        with pytest.raises(ValueError, match=r"take 0\.00 GB, and .* has 0\.00 GB free; name another folder in SONAR_"):
            local_shards(url, cache)
    assert ClipStore(local_shards(url, cache)).clips[0] == ClipStore(shards).clips[0]


def test_a_remote_summary_cannot_name_a_file_outside_its_folder(made: tuple[list[Clip], Path], tmp_path: Path) -> None:
    shards = Path(shutil.copytree(made[1], tmp_path / "shards"))
    view = shards_without(shards, {made[0][0].clip_id})
    with pytest.raises(ValueError, match=r"names a file outside itself, \.\./shards/"):
        local_shards(f"fsspec+file://{view}", tmp_path / "cache")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"nothing://x cannot be opened: .*; give a folder, or a URL of a known protocol"
    ):
        ShardFolder("nothing://x")


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"s3://\*\*\*@bucket/shards carries a password; give it by the environment"):
        ShardFolder("s3://key:secret@bucket/shards")


@pytest.mark.parametrize("pattern", ["*/*.parquet", "index.arrow", "quarantine.json"])
def test_a_changed_byte_is_found_and_named(shards: Path, pattern: str) -> None:
    victim = next(shards.glob(pattern))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    (damage,) = verify_shards(ShardFolder(shards))
    assert damage.file == victim.relative_to(shards).as_posix()
    assert "was written" in damage.reason
    victim.unlink()
    assert verify_shards(ShardFolder(shards)) == [(damage.file, "missing")]


def test_a_summary_that_is_not_what_was_written_is_refused(shards: Path) -> None:
    path = shards / "_summary.json"
    written = path.read_text()
    for changed in (written.replace('"num_clips": ', '"num_clips": 1'), written[:-1], written + " "):
        path.write_text(changed)
        with pytest.raises(ValueError, match=r"_summary\.json is damaged"):
            verify_shards(ShardFolder(shards))
    path.write_text(written.replace('"format": 2', '"format": 1'))
    with pytest.raises(ValueError, match="holds shards of format 1, and this release reads 2; remove the folder"):
        read_summary(ShardFolder(shards))


def test_datasets_reads_audio_and_labels_without_being_told(
    made: tuple[list[Clip], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets: Any = pytest.importorskip("datasets")
    clips, folder = made
    files = sorted(map(str, folder.glob("*/*.parquet")))
    table = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path), split="train")
    assert table.features["audio"] == datasets.Audio(sampling_rate=16_000)
    assert table.features["labels"] == datasets.List(datasets.Value("string"))
    plain = table.cast_column("audio", datasets.Audio(decode=False))
    assert plain.num_rows == len(clips)
    of_id = {clip.clip_id: clip for clip in clips}
    for row in plain:
        clip = of_id[row["clip_id"]]
        assert (tuple(row["labels"]), row["audio"]["path"]) == (clip.labels, clip.clip_id)
        samples, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        np.testing.assert_allclose(samples, decode_audio(clip.path), atol=1 / 32768)


def run(*words: str) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["data", "shards", *words])


def test_the_command_verifies_and_names_what_is_damaged(shards: Path) -> None:
    found = run("--out", str(shards), "--verify")
    assert found.exit_code == 0 and "0 damaged files" in found.output
    victim = next(shards.rglob("*.parquet"))
    victim.write_bytes(b"x")
    found = run("--out", str(shards), "--verify")
    assert found.exit_code == 1 and f"damaged: {shards}/{victim.relative_to(shards)}: its sha256" in found.output
    found = run("--out", str(shards), "--verify", "--json")
    (damage,) = json.loads(found.output)["damaged"]
    assert damage["file"] == str(victim.relative_to(shards))


def test_the_command_wants_a_manifest_unless_it_verifies(tmp_path: Path) -> None:
    found = run("--out", str(tmp_path / "out"))
    assert isinstance(found.exception, ValueError) and "no manifest given; make one with" in str(found.exception)


def test_the_command_reads_a_manifest_that_lies_elsewhere_and_needs_no_ray_for_what_is_there(
    made: tuple[list[Clip], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, folder = made
    heard: list[Clip] = []

    def listen(given: list[Clip], *arguments: Any, **options: Any) -> Any:
        heard.extend(given)
        return write_shards(given, *arguments, **options)

    monkeypatch.setattr("sonar.data.shards.write_shards", listen)
    monkeypatch.setattr("sonar.search.run.ray_session", None)
    root = str(folder.parent / "corpus")
    write_manifest(clips, tmp_path / "manifest.csv", root=root)
    found = run(str(tmp_path / "manifest.csv"), "--root", root, "--out", str(folder))
    assert f"6 clips in {len(read_summary(ShardFolder(folder)).files)} files: {folder}" in found.output
    assert heard == clips


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_writes_shards_and_says_what_it_left_out(tmp_path: Path, write_audio: Write) -> None:
    for number in range(6):
        write_audio(f"corpus/{number}.wav")
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    write_manifest(clips, tmp_path / "corpus" / "manifest.csv")
    Path(clips[0].path).write_bytes(b"not audio")
    words = [str(tmp_path / "corpus" / "manifest.csv"), "--out", f"fsspec+file://{tmp_path}/out", "--ray", "local"]
    found = run(*words, "--num-cpus", "1", "--max-bad-fraction", "0.5", "--json")
    told = json.loads(found.output)
    assert told["num_clips"] == 5 and sum(stratum["num_bad"] for stratum in told["strata"].values()) == 1
    assert "has changed since its manifest was made" in told["quarantine"][0]["reason"]
    found = run(*words)  # they are there: without Ray
    assert f"quarantined {clips[0].path}: the file has changed" in found.output and "5 clips in" in found.output
