"""A pass that was killed goes on: what is done is not done again, and the end is the same."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crashing import crash_on_the_third

from sonar.data import shard_plan, shards
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.shard_folder import ShardFolder, only_one
from sonar.data.shard_parts import ROW_GROUP_BYTES, finished_parts, write_part
from sonar.data.shard_plan import Part, plan_parts
from sonar.data.shards import encode_guarded, finish, write_shards
from sonar.data.stream import ClipStore

Write = Callable[..., Path]
SMALL_PART = 14_000  # bytes: two clips of 0.2 s
KILLED_PASS = """
import os, signal, sys
import ray
from sonar.data import shard_plan
from sonar.data.corpora import load_corpus
from sonar.data.shards import write_shards

shard_plan._SMALLEST_PART = int(sys.argv[3])
options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
ray.init("local", num_cpus=1, _temp_dir=sys.argv[4], **options)
clips = load_corpus(sys.argv[1], domain="bio").clips

def die_after_two_parts(progress):
    if progress.num_done >= 4:
        os.kill(os.getpid(), signal.SIGKILL)

write_shards(clips, sys.argv[2], on_progress=die_after_two_parts)
"""


@pytest.fixture
def clips(tmp_path: Path, write_audio: Write, monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """Twelve clips of one stratum or two, in parts of two."""
    monkeypatch.setattr(shard_plan, "_SMALLEST_PART", SMALL_PART)
    for number in range(12):
        write_audio(f"corpus/{number:02d}.wav")
    return load_corpus(tmp_path / "corpus", domain="bio").clips


def in_process(parts: list[Part], folder: Path, clips: list[Clip]) -> shards.ShardSummary:
    target = ShardFolder(folder)
    return finish([write_part(part, target, encode_guarded) for part in parts], target, manifest_hash(clips))


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_pass_goes_on_without_decoding_again_what_was_done(
    local_ray: None, clips: list[Clip], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as temporary:
        arguments = [str(tmp_path / "corpus"), str(out), str(SMALL_PART), temporary]
        killed = subprocess.run([sys.executable, "-c", KILLED_PASS, *arguments], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        ClipStore(out)
    parts = plan_parts(clips)
    done = finished_parts(parts, ShardFolder(out))
    assert 2 <= len(done) < len(parts)
    whole = in_process(parts, tmp_path / "whole", clips)
    for part in parts:
        for clip in part.clips if part.key in done else ():
            Path(clip.path).unlink()  # whoever decodes a finished part again finds nothing
    summary = write_shards(clips, out, max_bad_fraction=0.0)
    assert summary == whole
    assert list(ClipStore(out).clips) == list(ClipStore(tmp_path / "whole").clips)


def test_what_a_killed_writer_left_is_not_taken_for_a_part_and_is_removed(clips: list[Clip], tmp_path: Path) -> None:
    out, parts = tmp_path / "out", plan_parts(clips)
    first, second, third = parts[:3]
    target = ShardFolder(out)
    for part in (first, second):
        write_part(part, target, encode_guarded)
    (out / second.file).write_bytes((out / second.file).read_bytes()[:-1])  # on a disk that lost power
    write_part(third, target, encode_guarded)
    (out / f"_parts/{third.key}.arrow").unlink()  # killed before its record
    write_part(parts[3], target, encode_guarded)
    record = out / f"_parts/{parts[3].key}.arrow"
    record.write_bytes(record.read_bytes()[:100])
    (out / ".scratch-old").mkdir()
    (out / ".scratch-old" / "part.parquet").write_bytes(b"half")
    (out / first.file).with_name(".part-x.parquet.1234.partial").write_bytes(b"half")
    assert finished_parts(parts, target).keys() == {first.key}
    summary = in_process(parts, out, clips)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {*summary.files, "_summary.json"}
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(summary.strata)


def test_parts_depend_on_the_manifest_and_on_nothing_else(
    clips: list[Clip], make_clip: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = plan_parts(clips)
    assert plan_parts(clips[::-1]) == parts
    assert sorted(clip for part in parts for clip in part.clips) == sorted(clips)
    moved = [clip._replace(path=f"/elsewhere{clip.path}") for clip in clips]
    assert [part.file for part in plan_parts(moved)] == [part.file for part in parts]
    changed = [clips[0]._replace(labels=("other",)), *clips[1:]]
    assert sum(a.key != b.key for a, b in zip(plan_parts(changed), parts, strict=True)) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert plan_parts(clips) == parts


def test_a_part_holds_at_most_its_bytes_of_audio_but_for_one_long_clip(make_clip: Callable[..., Clip]) -> None:
    seconds = [5.0] * 3000 + [3000.0] + [60.0] * 500
    made = [make_clip(f"{row:05d}", duration_s=length) for row, length in enumerate(seconds)]
    parts = plan_parts(made)
    sizes = [sum(round(clip.duration_s * 16_000) * 2 for clip in part.clips) for part in parts]
    assert [len(part.clips) for part, size in zip(parts, sizes, strict=True) if size > shard_plan.SHARD_BYTES] == [1]
    assert min(sizes[:-1]) > 0.9 * min(shard_plan.SHARD_BYTES, sum(sizes) / 32) - 60 * 32_000


def test_a_decoder_that_crashes_takes_one_row_and_not_the_job(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "encode_slice", crash_on_the_third)
    summary = in_process(plan_parts(clips), tmp_path / "out", clips)
    (bad,) = summary.quarantine
    assert bad.path.endswith("/02.wav") and "crashed (SIGSEGV)" in bad.reason
    assert summary.num_clips == 11
    assert sum(stratum.num_bad for stratum in summary.strata.values()) == 1


def test_a_node_that_writes_elsewhere_is_found_out(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_pass", lambda parts, folder, concurrency: (part.key for part in parts))
    with pytest.raises(ValueError, match="what is not seen here; give a folder that all nodes share"):
        write_shards(clips, tmp_path / "out")


def test_a_driver_that_waited_for_another_one_finds_what_that_one_wrote(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_pass", None)  # whoever writes parts fails
    out = tmp_path / "out"
    with ThreadPoolExecutor() as pool:
        with only_one(out / "_parts" / "lock"):
            waiting = pool.submit(write_shards, clips, out)
            written = in_process(plan_parts(clips), out, clips)
            assert not waiting.done()
        assert waiting.result() == written


MEMORY = """
import sys, tracemalloc
import pyarrow as pa
from sonar.data.manifest import Clip
from sonar.data.shard_folder import ShardFolder, only_one
from sonar.data.shard_parts import write_part
from sonar.data.shard_plan import Part

count = int(sys.argv[2])
clip = Clip("", "", 0.0, 60.0, 16_000, 1, "c", "d", (), "g", "train", "")
part = Part("c-train", "0" * 16, tuple(clip._replace(clip_id=str(number)) for number in range(count)))
tracemalloc.start()
def audio(clips):
    return (number.to_bytes(4, "big") * 480_011 for number in range(count))
write_part(part, ShardFolder(sys.argv[1]), audio)
print(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""


def test_a_task_holds_a_few_row_groups_and_not_its_part(tmp_path: Path) -> None:
    held = {}
    for count in (8, 32):  # clips of 1.9 MB: two row groups, and a part of the full size
        words = [sys.executable, "-c", MEMORY, str(tmp_path / str(count)), str(count)]
        held[count] = int(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert held[32] < 1.1 * held[8] < 10 * ROW_GROUP_BYTES
