"""`sonar compare` and `sonar noise`: what they print, and that the JSON holds all of it."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from evaluated import evaluation, make_predictions, noisier, without_class, write_run
from typer.testing import CliRunner

from sonar.cli.app import app
from sonar.evaluate.noise import read_noise
from sonar.evaluate.record import Evaluation, read_evaluation, split_folder
from sonar.evaluate.run import compare as told_with
from sonar.search.prepare import Prepared
from sonar.search.trial import TrialResult

BIRDS, GENERAL = make_predictions(1, recordings=12), make_predictions(2, recordings=12)
BASE = evaluation(("birds", "target", BIRDS), ("general", "prior", GENERAL))


def of_seed(seed: int, push: float = 0.0) -> Evaluation:
    birds, general = noisier(BIRDS, seed, help_truth=push), noisier(GENERAL, 50 + seed, noise=0.2)
    return evaluation(("birds", "target", birds), ("general", "prior", general))


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep with its base, a good trial under two seeds, and one that forgot a class."""
    trials = tmp_path / "bio" / "trials"
    forgot = evaluation(("birds", "target", BIRDS), ("general", "prior", without_class(GENERAL, 1)))
    for name, made, lr, seed in (
        ("anchor-base", BASE, 0.0, 0),
        ("trial-000", of_seed(0, push=1.0), 1.0, 0),
        ("trial-001", of_seed(1, push=1.0), 1.0, 1),
        ("trial-002", forgot, 2.0, 0),
    ):
        write_run(trials / name, made, {"optim": {"lr": lr}, "training": {"seed": seed}})
    return tmp_path / "bio"


def test_a_comparison_says_what_differs_who_dominates_and_who_was_forgotten(sweep: Path) -> None:
    out = run("compare", sweep / "trial-000", sweep / "trial-002")
    assert "optim.lr: A 1.0, B 2.0" in out and "training.seed" not in out
    assert "A dominates B in " in out and "plasticity" in out
    assert "base -> A: no class is certain to have been lost" in out
    assert "base -> B: certain to have been lost: k1 (general -" in out
    assert "one run a side: intervals are over recordings" in out


def test_the_json_of_a_comparison_holds_every_number(sweep: Path) -> None:
    arguments = ("compare", sweep / "trial-000", sweep / "trial-002", "--resamples", 200, "--json")
    found: dict[str, Any] = json.loads(run(*arguments))
    folders = [sweep / "trials" / name for name in ("trial-000", "trial-002")]
    told = [told_with(BASE, read_evaluation(split_folder(folder, "dev"))) for folder in folders]
    for side, change in zip(("first", "second"), told, strict=True):
        assert found["axes"]["plasticity"][side]["value"] == pytest.approx(change.plasticity)
        assert found["axes"]["forgetting_rate"][side]["value"] == pytest.approx(change.forgetting_rate)
    assert found["config"] == {"optim.lr": [1.0, 2.0]} and found["base"].endswith("anchor-base")
    assert len(found["changes"]["classes"]) == 6 and len(found["since_base"]) == 2
    assert {"low", "high"} == found["changes"]["tasks"][0]["interval"].keys()
    assert found == json.loads(run(*arguments))
    assert found != json.loads(run(*arguments, "--seed", 1))


def test_without_a_base_scores_are_compared_and_it_is_said(sweep: Path, tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", of_seed(3))
    out = run("compare", sweep / "trial-000", alone)
    assert "no base: give it by --base" in out and "dominates" not in out
    assert "dominates" in run("compare", sweep / "trial-000", alone, "--base", sweep / "anchor-base")


def test_runs_of_several_seeds_are_one_side(sweep: Path) -> None:
    more = ("--seeds-a", sweep / "trial-001")
    out = run("compare", sweep / "trial-000", sweep / "trial-002", *more)
    assert "trial-000, " in out.replace("\n", "") and "one run a side" not in out
    found = json.loads(run("compare", sweep / "trial-000", sweep / "trial-002", *more, "--json"))
    each = [compare_value(sweep, name) for name in ("trial-000", "trial-001")]
    assert found["axes"]["plasticity"]["first"]["value"] == pytest.approx(sum(each) / 2)
    twice = CliRunner().invoke(app, ["compare", *map(str, [sweep / "trial-000"] * 2), *map(str, more * 2)])
    assert "are the same run" in str(twice.exception)
    assert len(run("compare", sweep / "trial-000", sweep / "trial-002", "--worst", 1)) < len(out)


def compare_value(sweep: Path, name: str) -> float:
    return told_with(BASE, read_evaluation(split_folder(sweep / "trials" / name, "dev"))).plasticity


def test_noise_of_finished_runs_is_printed_and_written(sweep: Path, tmp_path: Path) -> None:
    runs = ("--from", sweep / "trial-000", "--from", sweep / "trial-001")
    out = run("noise", tmp_path / "n", *runs, "--epsilon", 1.5)
    assert "seeds for 1.5 %" in out and "plasticity: 1.5 % is " in out
    noise = read_noise(tmp_path / "n" / "noise.json")
    assert noise.plasticity.mean == pytest.approx(sum(compare_value(sweep, n) for n in ("trial-000", "trial-001")) / 2)
    told = json.loads(run("noise", tmp_path / "n", *runs, "--json", "--resamples", 300))
    assert told == json.loads((tmp_path / "n" / "noise.json").read_text())
    clips = told["resolution"]["plasticity"]["clips_needed"]
    assert clips is None or math.isfinite(clips)


def test_an_audit_runs_the_preset_under_every_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "baseline", BASE)
    seen = []

    def trial(config: Any, prepared: Prepared, folder: Path, report: Any) -> Any:
        seen.append((folder.name, config.training.seed, config.distill.model_weight, config.optim.lr))
        if config.training.seed == 1:
            raise FloatingPointError("the codebook collapsed")
        write_run(folder, of_seed(config.training.seed))
        return TrialResult({}, str(folder), {})

    prepared = Prepared("new", "prior", "base-7", str(tmp_path / "baseline.json"), "embeddings")
    monkeypatch.setattr("sonar.search.run.ray_session", lambda address: contextlib.nullcontext())
    monkeypatch.setattr("sonar.search.prepare.prepare", lambda *arguments: prepared)
    monkeypatch.setattr("sonar.search.audit.run_trial", trial)
    out = run("noise", tmp_path / "n", "--preset", "no-model-distillation", "--seeds", 3, "--set", "optim.lr=0.5")
    assert seen == [(f"seed-{seed}", seed, 0.0, 0.5) for seed in range(3)]
    assert "seed-1 failed and is not in sigma: FloatingPointError: the codebook collapsed" in out
    made_by = json.loads((tmp_path / "n" / "noise.json").read_text())["made_by"]
    assert made_by["base"] == "base-7" and made_by["config"]["optim"]["lr"] == 0.5
    told = CliRunner().invoke(app, ["noise", str(tmp_path / "m"), "--seeds", "3", "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["made_by"]["base"] == "base-7" and "1/3 seed-0" in told.stderr
