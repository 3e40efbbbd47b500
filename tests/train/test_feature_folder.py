"""Features in a folder: whole or not believed, bounded, and shared by processes that know nothing of each other."""

import errno
import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sonar.train import feature_folder
from sonar.train.feature_folder import COUNTER, LEAST_FREE, FeatureFolder

SHAPE = (24, 32)
FILE_BYTES = 2 * 24 * 32 + 4
NAMES = [f"model-cpu-float32-{number:032x}" for number in range(20)]


def features(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).half()


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.rglob("*") if path.is_file() and path.name != COUNTER}


def test_what_was_kept_is_read_by_this_and_any_other_process(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path / "f", 10**9)
    assert folder.read(NAMES[0], SHAPE) is None
    folder.keep(NAMES[0], features(0))
    folder.keep(NAMES[1], features(1)[:, ::2])  # of any strides
    for reader in (folder, FeatureFolder(tmp_path / "f", 10**9), pickle.loads(pickle.dumps(folder))):
        found = reader.read(NAMES[0], SHAPE)
        assert found is not None and found.dtype == torch.float16 and torch.equal(found, features(0))
        assert torch.equal(reader.read(NAMES[1], (24, 16)), features(1)[:, ::2])
        assert reader.read(NAMES[2], SHAPE) is None
        assert reader.read(NAMES[0], (12, 64 + 1)) is None


def test_the_bound_holds_and_the_first_ones_stay(tmp_path: Path) -> None:
    for _ in range(2):  # and it holds for a folder that is opened again
        folder = FeatureFolder(tmp_path, 3 * FILE_BYTES + 7)
        for number, name in enumerate(NAMES):
            folder.keep(name, features(number))
    assert sorted(files(tmp_path)) == NAMES[:3]
    assert [folder.read(name, SHAPE) is not None for name in NAMES[:4]] == [True, True, True, False]


@pytest.mark.parametrize("damage", ["empty", "short", "one bit", "zeros", "no checksum"])
def test_a_torn_file_is_not_believed_and_is_written_anew(tmp_path: Path, damage: str) -> None:
    FeatureFolder(tmp_path, 10**9).keep(NAMES[0], features(0))
    path = files(tmp_path)[NAMES[0]]
    whole = path.read_bytes()
    middle = bytes([whole[99] ^ 4])
    torn = {
        "empty": b"",
        "short": whole[:1000],
        "one bit": whole[:99] + middle + whole[100:],
        "zeros": whole[:700] + bytes(len(whole) - 700),
        "no checksum": whole[:-4],
    }
    path.write_bytes(torn[damage])
    folder = FeatureFolder(tmp_path, 10**9)
    assert folder.read(NAMES[0], SHAPE) is None
    folder.keep(NAMES[0], features(0))
    assert path.read_bytes() == whole


def test_a_writer_that_dies_leaves_nothing_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    folder = FeatureFolder(tmp_path, 10**9)
    with pytest.raises(KeyboardInterrupt):
        folder.keep(NAMES[0], features(0))
    assert folder.read(NAMES[0], SHAPE) is None and files(tmp_path) == {}


def _fill(folder: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:  # type: ignore[name-defined]
    store = FeatureFolder(folder, 10 * FILE_BYTES)
    barrier.wait()
    for number, name in enumerate(NAMES):
        store.keep(name, features(number))


def test_two_processes_share_a_folder_and_its_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_fill, args=(tmp_path, barrier)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found, reader = files(tmp_path), FeatureFolder(tmp_path, 0)
    assert 5 <= len(found) <= 10  # what both wrote at once was counted twice
    for number, name in enumerate(NAMES):
        read = reader.read(name, SHAPE)
        assert (read is not None) == (name in found)
        assert read is None or torch.equal(read, features(number))


def test_the_last_of_a_disk_is_left_to_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = feature_folder.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(feature_folder.shutil, "disk_usage", lambda path: usage._replace(free=int(LEAST_FREE)))
    FeatureFolder(tmp_path, 10**9).keep(NAMES[0], features(0))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_costs_time_and_not_the_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(source: str, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    folder = FeatureFolder(tmp_path, features(0).nbytes + 4)  # room for one of them and its checksum
    with monkeypatch.context() as full, caplog.at_level(logging.WARNING):
        full.setattr(os, "replace", fail)
        if number == errno.EIO:
            with pytest.raises(OSError, match="error"):
                folder.keep(NAMES[0], features(0))
        else:
            folder.keep(NAMES[0], features(0))
            assert "no room for features" in caplog.text
    assert files(tmp_path) == {}
    folder.keep(NAMES[0], features(0))  # what was not written is not counted
    assert len(files(tmp_path)) == 1
