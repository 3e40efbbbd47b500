import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray.data
import soundfile

from sonar.data.audio import AudioError, decode_audio, file_sha256
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.shards import ShardSummary, quiet_ray_data, write_shards
from sonar.data.stream import ClipStore

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def prepared(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Clip], Path, ShardSummary]:
    """Ten files of different rates and lengths in two classes, their shards, and the summary."""
    root = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    for number in range(10):
        folder = root / "corpus" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = 0.3 * rng.standard_normal((800 + 101 * number, 1 + number % 2))
        soundfile.write(folder / f"{number}.flac", wave, (16_000, 8_000, 44_100)[number % 3])
    clips = load_corpus(root / "corpus", domain="bio").clips
    return clips, root / "out", write_shards(clips, root / "out")


def test_the_store_gives_back_every_clip_of_the_manifest(prepared: tuple[list[Clip], Path, ShardSummary]) -> None:
    clips, folder, summary = prepared
    store = ClipStore(folder)
    assert list(store.clips) == sorted(clips)
    assert len(store) == summary.num_clips == 10
    for row, clip in enumerate(store.clips):
        expected = np.clip(np.rint(decode_audio(clip.path) * 32768), -32768, 32767) / 32768
        assert store.num_samples[row] == len(expected)
        assert np.array_equal(store.waveform(row), expected)
        assert np.array_equal(store.waveform(row, 100, 50), expected[100:150])
        assert np.array_equal(store.waveform(row, 100), expected[100:])
    assert [store.clips[row].split for row in store.index(split="dev")] == ["dev"] * summary.strata[
        "corpus-dev"
    ].num_clips


def test_a_shard_is_plain_parquet_with_the_audio_struct_of_hugging_face(
    prepared: tuple[list[Clip], Path, ShardSummary],
) -> None:
    clips, folder, summary = prepared
    files = sorted(folder.rglob("*.parquet"))
    assert {file.parent.name for file in files} == set(summary.strata)
    tables = [pq.ParquetFile(file).read() for file in files]
    assert tables[0].column_names == [*Clip._fields, "audio"]
    rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["clip_id"])
    assert [row["clip_id"] for row in rows] == sorted(clip.clip_id for clip in clips)
    for row in rows:
        assert row["audio"]["path"] == row["clip_id"]
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert rate == 16_000
        np.testing.assert_allclose(samples, np.clip(decode_audio(row["path"]), -1, 1), atol=1 / 32768)


def test_shards_that_are_there_are_found_without_ray(
    prepared: tuple[list[Clip], Path, ShardSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, folder, summary = prepared
    monkeypatch.setattr(ray.data, "from_arrow", None)
    assert write_shards(clips[::-1], folder) == summary
    assert summary.manifest == manifest_hash(clips)
    with pytest.raises(ValueError, match=r"holds the shards of manifest .*; give another folder"):
        write_shards(clips[1:], folder)
    with pytest.raises(ValueError, match="exists and holds no shards"):
        write_shards(clips, folder.parent)


def hash_or_zeros(path: Path) -> str:
    try:
        return file_sha256(path)
    except AudioError:
        return "0" * 64


def test_bad_clips_are_quarantined_row_by_row_and_good_ones_survive(
    local_ray: None, faulty_folder: Path, fault_reasons: dict[str, str], make_clip: Callable[..., Clip]
) -> None:
    good = load_corpus(faulty_folder, domain="bio", max_bad_fraction=0.9).clips
    names = [name for name in fault_reasons if name != "link.wav"]  # a manifest holds no links
    bad = [
        make_clip(name, path=str(faulty_folder / "a" / name), sha256=hash_or_zeros(faulty_folder / "a" / name))
        for name in names
    ]
    changed = good[0]
    soundfile.write(changed.path, np.zeros(3_200), 16_000)
    late = good[1]._replace(clip_id="late", start_s=0.1)
    folder = faulty_folder.parent / "out"
    summary = write_shards([*good, *bad, late], folder, max_bad_fraction=0.9)
    store = ClipStore(folder)
    assert list(store.clips) == sorted(good[1:])
    reasons = {item.path: item.reason for item in summary.quarantine}
    assert len(reasons) == len(summary.quarantine) == len(bad) + 2
    for clip in bad:
        assert re.search(fault_reasons[Path(clip.path).name], reasons[clip.path])
    assert "changed since its manifest was made" in reasons[changed.path]
    assert "lasts to 0.30 s, the file to 0.20 s" in reasons[late.path]
    (told,) = [item for item in summary.quarantine if item.path == changed.path]
    assert (told.kind, told.stratum, told.seconds) == ("changed", "corpus/a", changed.duration_s)
    assert len(json.loads((folder / "quarantine.json").read_text())) == len(bad) + 2


def test_too_many_bad_clips_stop_the_pass_and_leave_nothing_that_reads_as_shards(
    local_ray: None, tmp_path: Path, write_audio: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        write_audio(f"corpus/a/{number}.wav")
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    Path(clips[2].path).unlink()
    out = tmp_path / "shards" / "out"
    with pytest.raises(ValueError, match=r"1 of 4 clips are unreadable \(allowed: 5%\): .*no such file") as caught:
        write_shards(clips, out)
    os.write(2, b"what the command says")  # while the error and its frames are alive
    assert capfd.readouterr().err == "what the command says" and caught.value
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        ClipStore(out)
    assert write_shards(clips, out, max_bad_fraction=0.25).num_clips == 3


def test_a_file_that_was_missing_is_looked_for_again(local_ray: None, tmp_path: Path, write_audio: Write) -> None:
    for number in range(4):
        write_audio(f"corpus/a/{number}.wav")
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    Path(clips[2].path).rename(tmp_path / "away.wav")
    with pytest.raises(ValueError, match="1 of 4 clips are unreadable"):
        write_shards(clips, tmp_path / "out")
    (tmp_path / "away.wav").rename(clips[2].path)
    assert write_shards(clips, tmp_path / "out").num_clips == 4


def test_a_missing_shard_is_named(prepared: tuple[list[Clip], Path, ShardSummary], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no finished shards in .*; prepare the corpus again"):
        ClipStore(tmp_path)
    shutil.copytree(prepared[1], tmp_path / "copy")
    next((tmp_path / "copy").rglob("*.parquet")).unlink()
    with pytest.raises(FileNotFoundError, match=r"shard .*\.parquet is missing"):
        ClipStore(tmp_path / "copy")


def test_nothing_and_a_doubled_clip_are_refused(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    with pytest.raises(ValueError, match="no clips: the manifest is empty"):
        write_shards([], tmp_path / "out")
    with pytest.raises(ValueError, match=r"clip_id 'c/a\.wav' stands twice"):
        write_shards([make_clip(), make_clip(split="dev")], tmp_path / "out")


def test_what_ray_writes_past_its_loggers_is_shown_only_if_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_ray_data():
        os.write(2, b"an error that is none\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="it failed"), quiet_ray_data():
        os.write(2, b"why it failed\n")
        raise ValueError("it failed")
    os.write(2, b"after it\n")
    assert capfd.readouterr().err == "why it failed\nafter it\n"
