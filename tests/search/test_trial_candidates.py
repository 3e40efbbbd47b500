"""The candidates that a real trial leaves: what was scored is what is kept and what is materialised, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_prepare import config
from test_watch import EVERY, STEPS, Ended, Killed, deterministic, ended, prepared, watched
from tiny import changed, tensors

from sonar.checkpoint import load_checkpoint
from sonar.evaluate.curve import read_curve
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.evaluate.run_folders import read_run
from sonar.model.interpolation import interpolated
from sonar.search.candidate_folders import load_candidate, read_offers, remove
from sonar.search.prepare import Prepared, read_baseline
from sonar.search.trial import run_trial
from sonar.search.watch import Watch
from sonar.train.loop import StepReport

__all__ = ["ended", "prepared"]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
ALPHAS = (0.25, 0.5)


def offering(**changes: Any) -> Any:
    return watched(**{"evaluation.alphas": list(ALPHAS)} | changes)


class Offered(Ended):
    """A trial with alphas whose candidates are kept."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.folder, self.reports = folder, list[StepReport]()
        self.result = run_trial(offering(), prepared, folder, self.reports.append, keep_candidates=True)


@pytest.fixture(scope="module")
def offered(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Offered:
    return Offered(prepared, tmp_path_factory.mktemp("offered") / "run")


def test_every_point_and_alpha_is_a_candidate_with_the_numbers_that_were_shown(offered: Offered) -> None:
    offers = read_offers(offered.folder)
    places = [(2, 1.0), (4, 1.0), *((STEPS, alpha) for alpha in ALPHAS)]
    assert [(offer.step, offer.alpha) for offer in offers] == places
    points = {point.step: point for point in read_curve(offered.folder) if point.stage == "model"}
    for offer in offers:
        shown = (offer.metrics["plasticity"], offer.metrics["forgetting_rate"])
        if offer.alpha == 1:
            assert shown == points[offer.step][2:4]
            assert read_run(offer.folder(offered.folder)).config["evaluation.every"] == EVERY
        else:
            told = offered.result.metrics
            assert shown == (
                told[f"alpha-{offer.alpha:g}/plasticity"],
                told[f"alpha-{offer.alpha:g}/forgetting_rate"],
            )


def test_a_materialised_candidate_scores_as_it_was_scored(prepared: Prepared, offered: Offered) -> None:
    base, end = (load_checkpoint(folder).encoder for folder in (prepared.base, offered.result.checkpoint))
    watch = Watch(offering(), prepared, offered.folder)
    for offer in read_offers(offered.folder):
        made = load_candidate(Path(prepared.base), offer.checkpoint(offered.folder), offer.alpha)
        _, change = watch.score(made.encoder)
        assert change.metrics().items() <= offer.metrics.items()
        if offer.alpha < 1:
            expected = interpolated(base.state_dict(), end.state_dict(), offer.alpha)
            assert all(torch.equal(value, expected[name]) for name, value in made.encoder.state_dict().items())
            assert not (offer.folder(offered.folder) / "checkpoint").exists()


def test_leaving_candidates_changes_nothing_of_the_trial(offered: Offered, ended: Ended) -> None:
    one, other = (load_checkpoint(run.result.checkpoint).encoder for run in (offered, ended))
    assert not changed(tensors(one), tensors(other))
    assert deterministic(ended.result).items() <= deterministic(offered.result).items()
    assert read_offers(ended.folder) == []


@pytest.mark.parametrize("kill", ["on the way", "between the alphas"])
def test_a_killed_trial_leaves_the_same_candidates(
    kill: str, prepared: Prepared, offered: Offered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver may meanwhile have deleted the weights of one, which then stays deleted."""

    def at_step_5(report: StepReport) -> None:
        if kill == "on the way" and (report.stage, report.step) == ("model", 5):
            raise Killed

    score, scored = Watch.score, []

    def counted(watch: Watch, encoder: Any) -> Any:
        scored.append(encoder)
        if kill == "between the alphas" and len(scored) == 5:  # two points, the end, one alpha
            raise Killed
        return score(watch, encoder)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Watch, "score", counted)
        run_trial(offering(), prepared, folder, at_step_5, keep_candidates=True)
    deleted = folder / "candidates" / "step-000002" / "checkpoint"
    remove(deleted)
    resumed = run_trial(offering(), prepared, folder, lambda report: None, keep_candidates=True)
    assert deterministic(resumed) == deterministic(offered.result)
    assert not deleted.exists()
    for offer, expected in zip(read_offers(folder), read_offers(offered.folder), strict=True):
        assert offer == expected
        if offer.step == 4:
            ours, theirs = (load_checkpoint(offer.checkpoint(f)).encoder for f in (folder, offered.folder))
            assert not changed(tensors(ours), tensors(theirs))


def test_a_trial_that_trains_nothing_is_the_base_and_scores_nothing(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonar.search.watch.evaluate_encoder", None)
    still = {f"training.{name}_steps": 0 for name in ("tokenizer", "model", "head", "predictor")}
    plain = config(**still, **{"evaluation.alphas": list(ALPHAS)})
    result = run_trial(plain, prepared, tmp_path / "run", lambda report: None, keep_candidates=True)
    assert read_offers(tmp_path / "run") == [] and not [name for name in result.metrics if "alpha" in name]
    assert (result.metrics["plasticity"], result.metrics["forgetting_rate"]) == (0.0, 0.0)
    base, left = read_baseline(prepared.baseline), read_evaluation(split_folder(tmp_path / "run", "dev"))
    for role in ("target", "prior"):
        assert left.scores(role) == base.scores(role)


def test_what_a_trial_is_stays_known_without_its_checkpoint(prepared: Prepared, tmp_path: Path) -> None:
    result = run_trial(watched(), prepared, tmp_path / "run", lambda report: None)
    before = read_run(tmp_path / "run")
    remove(Path(result.checkpoint))
    after = read_run(tmp_path / "run")
    assert (after.config, after.base) == (before.config, before.base) and after.base
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["trial"]
    assert read_evaluation(split_folder(tmp_path / "run", "dev"))
