"""Runs of one configuration under several seeds: none is repeated, none is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluated import evaluation, make_predictions, noisier, write_run

from sonar.config import override
from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.record import Evaluation, split_folder, write_evaluation
from sonar.evaluate.run import compare
from sonar.experiment import TrialConfig
from sonar.search import audit
from sonar.search.audit import AuditConfig, audit_existing, audit_seeds, run_all
from sonar.search.prepare import Prepared
from sonar.search.repeats import seeded
from sonar.search.trial import TrialResult, run_trial
from sonar.train.loop import NonFiniteLossError

BIRDS, GENERAL = make_predictions(1), make_predictions(2)
BASE = evaluation(("birds", "target", BIRDS), ("general", "prior", GENERAL))
RESAMPLING = Resampling(num=200)


def of_seed(seed: int) -> Evaluation:
    return evaluation(("birds", "target", noisier(BIRDS, seed)), ("general", "prior", noisier(GENERAL, 50 + seed)))


class Trials:
    """In place of run_trial: evaluations without training; `broken` seeds diverge."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.broken: set[int] = set()

    def __call__(self, config: TrialConfig, prepared: Prepared, folder: Path, report: Any) -> TrialResult:
        seed = config.training.seed
        assert config.sampling.seed == seed and folder.name == f"seed-{seed}"
        if seed in self.broken:
            raise NonFiniteLossError("loss is nan")
        if not (folder / "evaluation").exists():
            self.trained.append(seed)
            write_evaluation(of_seed(seed), split_folder(folder, "dev"))
        return TrialResult(dict(compare(BASE, of_seed(seed))._asdict()), str(folder), {})


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    made = Trials()
    monkeypatch.setattr(audit, "run_trial", made)
    return made


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    write_evaluation(BASE, split_folder(tmp_path / "baseline-1", "dev"))
    return Prepared("new", "prior", "base", str(tmp_path / "baseline-1.json"), "embeddings")


def measure(prepared: Prepared, folder: Path, seeds: int = 3, lines: list[str] | None = None) -> Any:
    lines = [] if lines is None else lines
    return audit_seeds(TrialConfig(), prepared, folder, AuditConfig(seeds=seeds, resampling=RESAMPLING), lines.append)


def test_every_seed_is_run_once_and_further_seeds_alone_are_added(
    trials: Trials, prepared: Prepared, tmp_path: Path
) -> None:
    lines: list[str] = []
    found = measure(prepared, tmp_path / "out", lines=lines)
    assert trials.trained == [0, 1, 2] and lines == ["1/3 seed-0", "2/3 seed-1", "3/3 seed-2"]
    assert found.plasticity.values == pytest.approx([compare(BASE, of_seed(s)).plasticity for s in range(3)])
    more = measure(prepared, tmp_path / "out", seeds=4)
    assert trials.trained == [0, 1, 2, 3] and more.plasticity.values[:3] == found.plasticity.values


def test_a_seed_that_fails_is_reported_and_tried_again(trials: Trials, prepared: Prepared, tmp_path: Path) -> None:
    trials.broken, lines = {1}, []
    found = measure(prepared, tmp_path / "out", lines=lines)
    assert found.failed == {"seed-1": "NonFiniteLossError: loss is nan"} and found.runs == ("seed-0", "seed-2")
    assert "2/3 seed-1 failed: NonFiniteLossError: loss is nan" in lines
    trials.broken = set()
    assert measure(prepared, tmp_path / "out").failed == {}


def test_where_nearly_all_seeds_fail_there_is_no_noise_but_the_reasons(
    trials: Trials, prepared: Prepared, tmp_path: Path
) -> None:
    trials.broken = {0, 2}
    with pytest.raises(ValueError, match="there are 1; seed-0 failed: NonFiniteLossError: loss is nan; seed-2 failed"):
        measure(prepared, tmp_path / "out")


def test_an_audit_needs_two_seeds_and_one_level_of_workers(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 seeds have no spread; give 2 or more"):
        AuditConfig(seeds=1)
    with pytest.raises(ValueError, match="jobs is 0; give 1 or more"):
        AuditConfig(jobs=0)
    config = override(TrialConfig(), {"training.num_workers": 2})
    with pytest.raises(ValueError, match=r"2 runs at a time with training.num_workers above 1; set one of them to 1"):
        run_all({"a": config}, prepared, tmp_path, 2, lambda line: None)


@pytest.mark.slow
def test_runs_in_processes_of_their_own_end_as_they_do_here(prepared: Prepared, tmp_path: Path) -> None:
    """Two finished trials, and one whose shared work is not there."""
    configs = {f"seed-{seed}": seeded(TrialConfig(), seed) for seed in range(3)}
    for name in ("seed-0", "seed-1"):
        with pytest.raises(FileNotFoundError):  # it claims the folder, then finds no embeddings to train on
            run_trial(configs[name], prepared, tmp_path / name, lambda step: None)
        (tmp_path / name / "result.json").write_text(
            json.dumps({"metrics": {"plasticity": 1.5}, "checkpoint": name, "worst": {}})
        )
    (tmp_path / "seed-2").mkdir()
    (tmp_path / "seed-2" / "run_id").write_text("another run")
    here, apart = (run_all(configs, prepared, tmp_path, jobs, lambda line: None) for jobs in (1, 2))
    assert here == apart and list(apart) == list(configs)
    assert [outcome.metrics for outcome in apart.values()] == [{"plasticity": 1.5}, {"plasticity": 1.5}, None]
    assert "holds a run of another configuration" in str(apart["seed-2"].reason)


def test_noise_of_runs_that_are_there_is_that_of_the_audit(trials: Trials, prepared: Prepared, tmp_path: Path) -> None:
    found = measure(prepared, tmp_path / "out")
    folders = [_written(tmp_path / f"r{seed}", seed) for seed in range(3)]
    again = audit_existing(folders, tmp_path / "baseline-1", RESAMPLING)
    assert (again.plasticity, again.forgetting_rate) == (found.plasticity, found.forgetting_rate)
    assert again.runs == tuple(map(str, folders))


def test_runs_that_are_not_seeds_of_one_configuration_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    first, second, base = _written(tmp_path / "a", 0), _written(tmp_path / "b", 0), tmp_path / "baseline-1"
    with pytest.raises(ValueError, match=r"a and .*b are the same run or have the same seed"):
        audit_existing([first, second], base, RESAMPLING)
    other = _written(tmp_path / "c", 1, {"optim": {"lr": 1.0}})
    with pytest.raises(ValueError, match=r"a and .*c differ in optim.lr; give runs of one configuration"):
        audit_existing([first, other], base, RESAMPLING)
    with pytest.raises(FileNotFoundError, match="no evaluation of the base beside the runs; give the folder of one"):
        audit_existing([first, _written(tmp_path / "d", 1)], None, RESAMPLING)


def _written(folder: Path, seed: int, more: dict[str, Any] | None = None) -> Path:
    config = {"training": {"seed": seed}, "sampling": {"seed": seed}, **(more or {})}
    return write_run(folder, of_seed(seed), config)
