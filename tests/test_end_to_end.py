"""A whole sweep as a user runs it: a script of its own, embedded audio, local Ray, MLflow on SQLite."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonar.data.synth import write_synth_corpus
from sonar.evaluate.ledger import read_uses
from sonar.search.candidates import claimed_checkpoints
from sonar.search.results import front, pick, ranked_candidates
from sonar.search.run import read_sweep

SCRIPT = """
from sonar import PretrainConfig, ProbeConfig, SamplingConfig, Sweep, TrainingConfig, TrialConfig, choice, main, uniform
from sonar.experiment import BaseConfig

tiny = PretrainConfig(
    num_layers=2, width=32, ffn_width=64, num_heads=2, patch_width=16, position_kernel=4, num_codes=32, code_width=8,
    projection_steps=3, tokenizer_steps=3, model_steps=3, batch_size=8, clip_seconds=1.0,
)
SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(
        base=BaseConfig(pretrain=tiny),
        sampling=SamplingConfig(num_clusters=4),
        probe=ProbeConfig(clip_seconds=1.0),
        training=TrainingConfig(batch_size=8, clip_seconds=1.0, tokenizer_steps=2, model_steps=2, predictor_steps=1),
    ),
    space={"sampling.replay_ratio": uniform(0.3, 0.7), "optim.lr": choice(1e-4, 1e30)},
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=3,
)
if __name__ == "__main__":
    main(SWEEP)
"""


CORPORA = ("--data", "bio", "--prior", "prior", "--set", "evaluation.every=1", "--set", "evaluation.alphas=[0.5]")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "sweep.py", "--ray", "local", "--storage", "runs", *CORPORA, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TMPDIR": str(folder / "r")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_ends_with_equal_records_failed_trials_off_the_front_and_a_resume_that_repeats_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("s")
    (folder / "sweep.py").write_text(SCRIPT, encoding="utf-8")
    for name in ("bio", "prior"):
        write_synth_corpus(name, folder / name, clips_per_class=6)
    ended = run(folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    state = read_sweep(folder / "runs" / "bio")
    statuses = {record.trial_id: record.status for record in state.trials.values()}
    assert set(statuses) == {"anchor-base", "anchor-dcpt", *(f"trial-{number:03d}" for number in range(3))}
    for record in state.trials.values():
        diverges = record.params.get("optim.lr") == 1e30
        assert record.status == ("failed" if diverges else "told"), record.reason
        assert not diverges or "not finite" in (record.reason or "")
    ranked, chosen = pick(state)
    assert f"checkpoint: {ranked.candidate.checkpoint}" in ended.stdout and chosen.explanation in ended.stdout
    assert "failed" in statuses.values(), "the seed draws no diverging trial; choose another"
    assert not {ranked.record.trial_id for ranked in front(state)} & {t for t, s in statuses.items() if s == "failed"}
    assert state.trials["anchor-base"].metrics["plasticity"] == 0.0
    assert _mlflow_statuses(folder / "runs" / "mlflow.db") == {
        trial_id: "FINISHED" if status == "told" else "FAILED" for trial_id, status in statuses.items()
    }
    with (folder / "runs" / "bio" / "trials.csv").open(newline="", encoding="utf-8") as file:
        told = {row["trial_id"]: float(row["plasticity"]) for row in csv.DictReader(file) if row["status"] == "told"}
    ends = [r for r in ranked_candidates(state) if r.candidate.key.step == r.record.last_step]
    assert told == {r.record.trial_id: r.point.plasticity for r in ends if r.candidate.key.alpha == 1}

    scored = {(r.record.trial_id, *r.candidate.key[1:]) for r in ranked_candidates(state)}
    for trial_id in told:  # two steps: one point on the way, the end, a place between base and end
        places = {(0, 1.0)} if trial_id == "anchor-base" else {(1, 1.0), (2, 0.5), (2, 1.0)}
        assert {key[1:] for key in scored if key[0] == trial_id} == places
    weights = {str(path.parent) for path in (folder / "runs" / "bio" / "trials").rglob("model.safetensors")}
    assert weights == claimed_checkpoints(state) == {r.candidate.checkpoint for r in front(state)}
    assert "disk: checkpoints need" in ended.stdout

    uses = read_uses(folder / "runs")
    scored = {f"trial {trial_id}" for trial_id, status in statuses.items() if status == "told"}
    assert {use.split for use in uses} == {"dev"} and {use.purpose.split(",")[0] for use in uses} == {
        "base of trials",
        *scored,
    }
    curves = {t: [r for r in state.trials[t].reports if "model/forgetting_rate" in r.metrics] for t in statuses}
    assert {t for t, points in curves.items() if len(points) == 1} == {
        t for t, status in statuses.items() if status == "told" and t != "anchor-base"
    }

    journal = folder / "runs" / "bio" / "journal.jsonl"
    before = journal.read_bytes()
    refused = run(folder)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    again = run(folder, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert journal.read_bytes() == before


def _mlflow_statuses(database: Path) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("bio")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {r.data.tags["sonar.trial_id"]: r.info.status for r in runs if "sonar.trial_id" in r.data.tags}
