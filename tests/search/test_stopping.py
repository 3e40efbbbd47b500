"""A request to stop reaches other processes through the storage; a second signal does not wait."""

import os
import pickle
import signal
from pathlib import Path

import pytest

from sonar.search import stopping
from sonar.search.stopping import STOP_FILE, Aborted, StopRequest, signals_abort, signals_drain


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY_S", 0.0)


def test_a_request_is_seen_by_every_copy_and_can_be_taken_back(tmp_path: Path) -> None:
    owner = StopRequest(tmp_path)
    trial = pickle.loads(pickle.dumps(owner))
    assert not owner() and not trial()
    StopRequest(tmp_path).ask("ann on far")
    assert owner() and trial() and owner.by() == "ann on far"
    owner.withdraw()
    owner.withdraw()
    assert not owner() and trial()  # a trial that has seen it ends


def test_it_looks_at_the_storage_no_more_often_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_EVERY_S", 100.0)
    request = StopRequest(tmp_path)
    assert not request()
    StopRequest(tmp_path).ask("ann")
    assert not request()


def test_a_damaged_request_is_one(tmp_path: Path) -> None:
    (tmp_path / STOP_FILE).write_text("{")
    assert StopRequest(tmp_path)() and StopRequest(tmp_path).by() == "somebody"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_aborts_and_the_old_handlers_come_back(
    number: signal.Signals, tmp_path: Path
) -> None:
    before, request = signal.getsignal(number), StopRequest(tmp_path)
    with pytest.raises(Aborted), signals_abort(), signals_drain(request):
        os.kill(os.getpid(), number)
        assert request() and request.by() == number.name
        os.kill(os.getpid(), number)
        pytest.fail("it went on")
    assert signal.getsignal(number) is before


def test_before_there_is_anything_to_drain_one_signal_aborts() -> None:
    with pytest.raises(Aborted), signals_abort():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")
