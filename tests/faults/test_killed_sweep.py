"""A real small sweep, killed, drained and aborted at several points: it ends as the one that was left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_end_to_end import SCRIPT

from sonar.data.synth import write_synth_corpus
from sonar.search.journal import SweepState, read_journal, replay
from sonar.search.owner import read_owner
from sonar.search.results import front
from sonar.search.run import JOURNAL_FILE

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]
LONGER = SCRIPT.replace("tokenizer_steps=2, model_steps=2", "tokenizer_steps=20, model_steps=80, checkpoint_every=5")
LONGER = LONGER.replace("num_trials=3", "num_trials=5")
NAMES = ("plasticity", "forgetting_rate", "model/loss", "tokenizer/loss")
OPTIONS = ("--ray", "local", "--storage", "runs", "--data", "bio", "--prior", "prior")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("k")
    (folder / "sweep.py").write_text(LONGER, encoding="utf-8")
    for name in ("bio", "prior"):
        write_synth_corpus(name, folder / name, clips_per_class=6)
    return folder


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(folder / "r")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, **pipes)  # type: ignore[call-overload]


def resume(folder: Path) -> subprocess.Popen[str]:
    """By the journal alone: the script is gone by then."""
    return start(folder, "-c", "from sonar.cli import cli; cli()", "sweep", "resume", "runs/cut")


def state_of(folder: Path) -> SweepState:
    path = folder / JOURNAL_FILE
    return replay(read_journal(path)) if path.exists() else SweepState()


def num_starts(sweep: Path) -> int:
    return sum(record.num_starts for record in state_of(sweep).trials.values())


def wait_for_starts(process: subprocess.Popen[str], sweep: Path, count: int) -> None:
    """Wait until so many trials have been begun, or gone on with, since now."""
    before = num_starts(sweep)
    while process.poll() is None and num_starts(sweep) < before + count:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


def results(state: SweepState) -> dict[str, Any]:
    return {
        record.trial_id: (record.status, record.params, {name: record.metrics.get(name) for name in NAMES})
        for record in state.trials.values()
    }


def test_kills_drains_and_aborts_change_nothing(folder: Path) -> None:
    whole = start(folder, "sweep.py", "--name", "whole", *OPTIONS)
    said = whole.communicate()[0]
    assert whole.returncode == 0, said

    sweep = folder / "runs" / "cut"
    process = start(folder, "sweep.py", "--name", "cut", *OPTIONS)
    wait_for_starts(process, sweep, 1)
    (folder / "sweep.py").unlink()
    for count in (3, 2):
        _kill(process)
        process = resume(folder)
        wait_for_starts(process, sweep, count)
    _kill(process)

    process = resume(folder)
    wait_for_starts(process, sweep, 2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 75 and "stopped by SIGTERM; " in said and "sonar sweep resume" in said
    assert not (sweep / "stop.json").exists() and read_owner(sweep / JOURNAL_FILE) is None
    assert {record.status for record in state_of(sweep).trials.values()} <= {"told", "failed", "paused"}

    process = resume(folder)
    wait_for_starts(process, sweep, 1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 130 and "aborted" in said and "sonar sweep resume" in said, said
    assert read_owner(sweep / JOURNAL_FILE) is None

    process = resume(folder)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    cut, expected = state_of(sweep), state_of(folder / "runs" / "whole")
    assert results(cut) == results(expected)
    told = [event.data["trial_id"] for event in read_journal(sweep / JOURNAL_FILE) if event.event == "told"]
    assert len(told) == len(set(told))
    assert [r.point for r in front(cut)] == [r.point for r in front(expected)] and front(cut)
    status = start(folder, "-c", "from sonar.cli import cli; cli()", "sweep", "status", "runs/cut", "--json")
    assert json.loads(status.communicate()[0])["word"] == "finished"


def _kill(process: subprocess.Popen[str]) -> None:
    """The driver alone: its Ray finds out by itself."""
    process.kill()
    process.communicate()
