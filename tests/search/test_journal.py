"""The journal keeps what it acknowledged, refuses what contradicts it, and survives being cut anywhere."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.search.journal import (
    Journal,
    JournalBusy,
    JournalCorrupt,
    JournalError,
    read_journal,
    replay,
)

CREATED: dict[str, Any] = {
    "config": {"a": 1},
    "space": {"a": {"type": "Uniform", "low": 0, "high": 1}},
    "objectives": {"plasticity": "max", "forgetting_rate": "min"},
    "seed": 3,
}
METRICS = {"plasticity": 6.1, "forgetting_rate": 0.2}


def write_sweep(path: Path) -> None:
    ticks = iter(range(100))
    with Journal(path, clock=lambda: float(next(ticks))) as journal:
        journal.append("sweep_created", **CREATED)
        journal.append("suggested", trial_id="t0", kind="anchor", name="base <b>", params={})
        journal.append("started", trial_id="t0")
        journal.append("told", trial_id="t0", metrics={"plasticity": 0, "forgetting_rate": 0}, checkpoint=None)
        journal.append("suggested", trial_id="t1", kind="search", params={"a": 0.1 + 0.2}, config={"a": 0.3})
        journal.append("started", trial_id="t1")
        journal.append("reported", trial_id="t1", step=1, metrics={"loss": 2.5, "perplexity": math.nan})
        journal.append("checkpointed", trial_id="t1", step=1, checkpoint="t1/c1")
        journal.append("started", trial_id="t1")
        journal.append("told", trial_id="t1", metrics=METRICS, checkpoint="t1/final")
        journal.append("suggested", trial_id="t2", kind="search", params={"a": 1})
        journal.append("failed", trial_id="t2", reason="loss is nan", metrics={"plasticity": math.inf})
        journal.append("suggested", trial_id="t3", kind="search", params={"a": 0})
        journal.append("pruned", trial_id="t3", reason="dominated")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sweep" / "journal.jsonl"
    write_sweep(path)
    return path


def test_replay_tells_each_trials_story(path: Path) -> None:
    state = replay(read_journal(path))
    assert state.settings == CREATED
    assert state.created_s == 0.0
    assert {key: trial.status for key, trial in state.trials.items()} == {
        "t0": "told",
        "t1": "told",
        "t2": "failed",
        "t3": "pruned",
    }
    told = state.trials["t1"]
    assert told.metrics == METRICS
    assert told.params == {"a": 0.1 + 0.2}
    assert (told.name, told.checkpoint, told.num_starts) == ("t1", "t1/final", 2)
    assert (told.started_s, told.ended_s) == (5.0, 9.0)
    assert told.reports[0].step == 1 and told.reports[0].metrics["loss"] == 2.5
    assert math.isnan(told.reports[0].metrics["perplexity"])
    assert state.trials["t2"].reason == "loss is nan"
    assert state.trials["t2"].metrics == {}
    assert all(trial.is_finished for trial in state.trials.values())


def test_reopening_continues_where_it_ended(path: Path) -> None:
    before = read_journal(path)
    with Journal(path) as journal:
        assert repr(journal.state) == repr(replay(before))
        event = journal.append("suggested", trial_id="t4", kind="search", params={})
        assert event.seq == len(before)
    assert [event.seq for event in read_journal(path)] == list(range(len(before) + 1))
    assert repr(read_journal(path)[:-1]) == repr(before)


def test_the_state_of_an_open_journal_is_the_replay_of_its_file(path: Path) -> None:
    with Journal(path) as journal:
        journal.append("suggested", trial_id="t4", kind="search", params={"a": (1, 2)})
        assert repr(journal.state) == repr(replay(read_journal(path)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cut_anywhere_it_keeps_every_whole_line_and_the_torn_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "journal.jsonl"
    write_sweep(path)
    whole = path.read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    zeros = data.draw(st.sampled_from([0, 40]))
    remains = whole[:length] + b"\0" * zeros
    path.write_bytes(remains)
    num_whole = whole[:length].count(b"\n")
    assert len(read_journal(path)) == num_whole
    with Journal(path) as journal:
        assert journal.events == num_whole
        if num_whole == 0:
            journal.append("sweep_created", **CREATED)
        else:
            journal.append("suggested", trial_id="new", kind="search", params={})
    assert len(read_journal(path)) == num_whole + 1
    kept = whole[:length].rpartition(b"\n")[2] + b"\0" * zeros
    torn = path.with_name("journal.jsonl.torn")
    assert (torn.read_bytes() == kept + b"\n") if kept else not torn.exists()


def test_a_flipped_byte_in_any_whole_line_is_found_and_never_repaired(path: Path) -> None:
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        flipped = bytes([whole[position] ^ 1])
        if b"\n" in (flipped, whole[position : position + 1]):
            continue
        damaged = whole[:position] + flipped + whole[position + 1 :]
        path.write_bytes(damaged)
        line = whole[:position].count(b"\n") + 1
        with pytest.raises(JournalCorrupt, match=f"line {line} is not what was written"):
            read_journal(path)
        with pytest.raises(JournalCorrupt):
            Journal(path)
        assert path.read_bytes() == damaged


def test_a_missing_or_doubled_line_is_found(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged in ([*lines[:2], *lines[3:]], [*lines[:3], *lines[2:]]):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(JournalCorrupt):
            read_journal(path)


@pytest.mark.parametrize("event", ["told", "failed", "pruned", "started", "reported"])
def test_a_trial_ends_once(path: Path, event: str) -> None:
    fields: dict[str, dict[str, Any]] = {
        "told": {"metrics": METRICS, "checkpoint": None},
        "failed": {"reason": "x"},
        "pruned": {"reason": "x"},
        "started": {},
        "reported": {"step": 1, "metrics": {}},
    }
    data = fields[event]
    size = path.stat().st_size
    with Journal(path) as journal:
        for trial_id in ("t1", "t2", "t3"):
            with pytest.raises(JournalError, match=rf"{event}: trial '{trial_id}' has already ended"):
                journal.append(event, trial_id=trial_id, **data)
    assert path.stat().st_size == size


@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("sweep_created", CREATED, "already belongs to a sweep"),
        ("suggested", {"trial_id": "t1", "kind": "search", "params": {}}, "already suggested"),
        (
            "suggested",
            {"trial_id": "t9", "kind": "hope", "params": {}},
            "kind is 'hope'; allowed: anchor, search",
        ),
        ("started", {"trial_id": "t9"}, "'t9' was never suggested"),
        ("started", {}, "started: not given: trial_id"),
        ("started", {"trial_id": "t9", "why": 1}, "started: unknown: why"),
        ("finished", {"trial_id": "t1"}, "unknown event 'finished'"),
        ("started", {"trial_id": "t9", "seq": 1}, "'seq' belongs to the journal"),
    ],
)
def test_an_event_that_contradicts_the_journal_is_refused(
    path: Path, event: str, data: dict[str, Any], message: str
) -> None:
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(JournalError, match=message):
        journal.append(event, **data)
    assert path.read_bytes() == before


def test_nothing_comes_before_the_sweep_itself(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal, pytest.raises(JournalError, match="must be sweep_created"):
        journal.append("suggested", trial_id="t0", kind="search", params={})


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({**METRICS, "loss": math.nan}, "loss is 'nan'; allowed: a finite number"),
        ({**METRICS, "plasticity": math.inf}, "plasticity is 'inf'"),
        ({**METRICS, "plasticity": True}, "plasticity is True"),
        ({"plasticity": 1.0}, "lacks the objective forgetting_rate; fail it instead"),
    ],
)
def test_no_non_finite_or_missing_objective_is_told(path: Path, metrics: dict[str, Any], message: str) -> None:
    before = path.read_bytes()
    with Journal(path) as journal:
        journal.append("suggested", trial_id="t4", kind="search", params={})
        with pytest.raises(ValueError, match=message):
            journal.append("told", trial_id="t4", metrics=metrics, checkpoint=None)
        assert not journal.state.trials["t4"].is_finished
        with pytest.raises(ValueError, match="allowed: finite"):
            journal.append("suggested", trial_id="t5", kind="search", params={"a": math.nan})
        assert "t5" not in journal.state.trials
    assert len(path.read_bytes().splitlines()) == len(before.splitlines()) + 1


def test_two_drivers_cannot_own_one_sweep_and_the_second_learns_who_does(path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from sonar.search.journal import Journal
        with Journal(sys.argv[1]):
            print("open", flush=True)
            sys.stdin.read()
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    with pytest.raises(JournalBusy, match=f"owned by process {child.pid} on "):
        Journal(path)
    assert len(read_journal(path)) == 14  # readers need no lock
    child.kill()
    child.wait()
    with Journal(path), pytest.raises(JournalBusy, match=f"process {os.getpid()}"):
        Journal(path)


def test_reading_while_writing_does_not_give_the_lock_away(path: Path) -> None:
    with Journal(path):
        read_journal(path)
        with pytest.raises(JournalBusy):
            Journal(path)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_journal_and_state_as_they_were(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = path.read_bytes()
    with Journal(path) as journal:
        state = repr(journal.state)
        write = os.write

        def fails(fd: int, data: bytes = b"") -> int:
            if data:
                write(fd, data[: len(data) // 2])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(f"sonar.search.journal.os.{call}", fails)
            with pytest.raises(JournalError, match=r"cannot write suggested t4: .*No space left"):
                journal.append("suggested", trial_id="t4", kind="search", params={})
        assert path.read_bytes() == before
        assert repr(journal.state) == state
        journal.append("suggested", trial_id="t4", kind="search", params={})  # there is room again
    assert read_journal(path)[-1].data["trial_id"] == "t4"


def test_a_closed_journal_takes_nothing(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append("started", trial_id="t1")
