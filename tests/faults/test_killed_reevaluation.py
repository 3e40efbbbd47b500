"""A re-evaluation on Ray whose driver is killed: the same command goes on with it and runs no repeat twice."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fake_reevaluation
import pytest
from fake_reevaluation import NUM_AUDITED, Trials, baseline, begin, reevaluate_alone

from sonar.cli.front.reeval import print_standings
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.prepare import Sources
from sonar.search.reevaluation import ReevalConfig
from sonar.search.repeats import REPEATS
from sonar.search.results import front
from sonar.search.run import JOURNAL_FILE
from sonar.search.settings import RunOptions, settings_of
from sonar.search.space import Sweep, uniform

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
RATIOS = (0.2, 0.5)
SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(),
    space={"sampling.replay_ratio": uniform(0.1, 0.7)},
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=len(RATIOS),
    anchors=("base",),
    audit_seeds=NUM_AUDITED,
)


def searched(storage: Path) -> Path:
    """The folder of a sweep whose search has ended."""
    folder = storage / "bio"
    options = RunOptions(sources=Sources("bio"), storage=storage, ray="local", max_concurrent=1)
    with Journal(folder / JOURNAL_FILE) as journal:
        begin(journal, folder, settings_of(SWEEP, options), RATIOS)
    return folder


def start(folder: Path, ray: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_TMPDIR": str(ray)}
    command = [sys.executable, fake_reevaluation.__file__, baseline(folder), "front", "reeval", folder, "--seeds", "2"]
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def state_of(folder: Path) -> SweepState:
    return replay(read_journal(folder / JOURNAL_FILE))


def repeats(state: SweepState) -> dict[str, Any]:
    return {r.trial_id: (r.status, r.seed, r.of, r.metrics) for r in state.trials.values() if r.kind in REPEATS}


def test_a_killed_driver_goes_on_and_ends_with_the_same_verdicts(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path_factory.mktemp("k")
    whole, cut = searched(root / "whole"), searched(root / "cut")
    process = start(cut, root / "a")
    while process.poll() is None and not any(
        record.kind == "reeval" and record.reports for record in state_of(cut).trials.values()
    ):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.kill()
    process.communicate()
    (open_one,) = (record.trial_id for record in state_of(cut).trials.values() if not record.is_finished)

    with Journal(whole / JOURNAL_FILE) as journal:
        outcome = reevaluate_alone(Trials(journal, whole), ReevalConfig(seeds=2))
    print_standings(outcome.standings)
    verdicts = capsys.readouterr().out
    process = start(cut, root / "b")
    said = process.communicate()[0]
    assert process.returncode == 0 and verdicts in said, said
    expected, found = state_of(whole), state_of(cut)
    assert repeats(found) == repeats(expected) and len(repeats(found)) > NUM_AUDITED
    assert [r.point for r in front(found)] == [r.point for r in front(expected)]
    told = Counter(event.data["trial_id"] for event in read_journal(cut / JOURNAL_FILE) if event.event == "told")
    assert set(told.values()) == {1}
    starts = {record.trial_id: record.num_starts for record in found.trials.values() if record.kind in REPEATS}
    assert starts == dict.fromkeys(starts, 1) | {open_one: 2}
