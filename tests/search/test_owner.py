"""One owner: a live one is refused by name, a dead or silent one is taken over, and a sleeper finds out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sonar.search import owner as module
from sonar.search.journal import Journal, JournalBusy, read_journal
from sonar.search.owner import OWNER_FILE, STALE_S, Ownership, read_owner

SETTINGS = {"config": {}, "space": {}, "objectives": {"plasticity": "max"}, "seed": 0}


def says_so(folder: Path, *, host: str, pid: int, age_s: float) -> None:
    """A heartbeat of somebody else, as another host would have left it on a storage without locks."""
    path = folder / OWNER_FILE
    path.write_text(json.dumps({"host": host, "pid": pid, "since_s": 1.0, "token": "theirs"}))
    os.utime(path, (time.time() - age_s, time.time() - age_s))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.01)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)


@pytest.fixture
def dead_pid() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    yield child.pid


def test_a_live_owner_on_another_host_is_refused_by_name_where_no_lock_reaches(tmp_path: Path) -> None:
    says_so(tmp_path, host="far", pid=7, age_s=STALE_S / 2)
    with pytest.raises(JournalBusy, match="is owned by process 7 on far; wait for it or stop it first"):
        Journal(tmp_path / "journal.jsonl")
    found = read_owner(tmp_path)
    assert found is not None and found.token == "theirs"  # and left as it was


def test_a_silent_owner_is_taken_over_and_named(tmp_path: Path) -> None:
    says_so(tmp_path, host="far", pid=7, age_s=STALE_S + 1)
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert str(journal.taken_from) == "process 7 on far"
        now = read_owner(tmp_path)
        assert now is not None and (now.pid, now.is_stale) == (os.getpid(), False)
    assert read_owner(tmp_path) is None


def test_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path: Path, dead_pid: int) -> None:
    says_so(tmp_path, host=module.socket.gethostname(), pid=dead_pid, age_s=0.0)
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert str(journal.taken_from).startswith(f"process {dead_pid} on ")
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.taken_from is None  # given back


def test_an_owner_shows_signs_of_life(tmp_path: Path) -> None:
    owned = Ownership(tmp_path, "lock")
    path = tmp_path / OWNER_FILE
    os.utime(path, (1.0, 1.0))
    until = time.monotonic() + 5.0
    while path.stat().st_mtime < 2.0 and time.monotonic() < until:
        time.sleep(0.01)
    owned.close()
    owned.close()
    assert not path.exists() and time.monotonic() < until


def test_an_owner_that_slept_while_another_took_over_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 1e6)  # asleep
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append("sweep_created", **SETTINGS)
        says_so(tmp_path, host="far", pid=7, age_s=0.0)
        monkeypatch.setattr(journal._owned, "_refreshed", time.monotonic() - STALE_S)
        with pytest.raises(JournalBusy, match="taken over by process 7 on far while this one slept"):
            journal.append("suggested", trial_id="t", kind="search", params={})
    assert len(read_journal(tmp_path / "journal.jsonl")) == 1
    assert read_owner(tmp_path) is not None  # theirs stays


def test_the_age_is_by_the_clock_of_the_storage_and_not_by_this_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says_so(tmp_path, host="far", pid=7, age_s=10.0)
    monkeypatch.setattr(module.time, "time", lambda: 0.0)
    found = read_owner(tmp_path)
    assert found is not None and 9.0 < found.age_s < 15.0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "a"}'])
def test_a_damaged_owner_file_owns_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / OWNER_FILE).write_text(text)
    assert read_owner(tmp_path) is None
    with Journal(tmp_path / "journal.jsonl"):
        assert read_owner(tmp_path) is not None
