"""Domains one after the other: each stage starts where the last one ended, and nothing is done twice."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import changed, tensors

from sonar.checkpoint import load_checkpoint
from sonar.config import config_hash, override
from sonar.data.stream import ClipStore
from sonar.data.synth import write_synth_corpus
from sonar.evaluate.ledger import read_uses
from sonar.evaluate.metrics import continual_metrics
from sonar.evaluate.record import read_evaluation
from sonar.experiment import TrialConfig
from sonar.files import sha256_of
from sonar.search import sequence
from sonar.search.prepare import load_domain
from sonar.search.sequence import Domain, SequencePlan, SequenceResult, run_sequence
from sonar.search.trial import run_trial

TINY: dict[str, Any] = {
    "base.pretrain": {
        "num_layers": 2,
        "width": 32,
        "ffn_width": 64,
        "num_heads": 2,
        "patch_width": 16,
        "position_kernel": 4,
        "num_codes": 32,
        "code_width": 8,
        "projection_steps": 3,
        "tokenizer_steps": 2,
        "model_steps": 2,
        "batch_size": 8,
        "clip_seconds": 1.0,
    },
    "sampling.num_clusters": 4,
    "probe.clip_seconds": 1.0,
    "training": {
        "batch_size": 8,
        "clip_seconds": 1.0,
        "tokenizer_steps": 2,
        "model_steps": 2,
        "predictor_steps": 1,
    },
}
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

CONFIG = override(TrialConfig(), TINY)
TASKS = ("prior", "bio", "music")


class Run:
    """A sequence that was cut off in its second stage, and its continuation."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder, self.storage = root, root / "sequence", root / "runs"
        for name in TASKS:
            write_synth_corpus(name, root / name, clips_per_class=6)
        _plant_leak(root / "bio", root / "music")
        domains = tuple(Domain(name, str(root / name)) for name in TASKS[1:])
        self.plan = SequencePlan(domains=domains, prior=(str(root / "prior"),), replay_domains=True)
        self.lines: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sequence, "run_trial", self._cut_off)
            with pytest.raises(KeyboardInterrupt):
                self.run()
        self.lines_of_first, self.lines = self.lines, []
        self.result = self.run()
        self.lines_of_second, self.lines = self.lines, []

    def run(self, config: TrialConfig = CONFIG, folder: Path | None = None) -> SequenceResult:
        return run_sequence(config, self.plan, folder or self.folder, self.storage, self.lines.append)

    @staticmethod
    def _cut_off(config: TrialConfig, prepared: Any, folder: Path, *arguments: Any) -> Any:
        if folder.name.startswith("2"):
            raise KeyboardInterrupt
        return run_trial(config, prepared, folder, *arguments)

    def trial(self, stage: str) -> dict[str, float]:
        metrics: dict[str, float] = json.loads((self.folder / stage / "result.json").read_text())["metrics"]
        return metrics


def _plant_leak(source: Path, target: Path) -> None:
    """A training clip of `target` that is an evaluation clip of `source`."""
    with (source / "metadata.csv").open(newline="") as file:
        held_out = next(row for row in csv.DictReader(file) if row["split"] == "valid")
    with (target / "metadata.csv").open(newline="") as file:
        label = next(csv.DictReader(file))["label"]
    shutil.copy(source / held_out["file"], target / "leak.flac")
    with (target / "metadata.csv").open("a") as file:
        file.write(f"leak.flac,{label},train,leak\n")


def trained(lines: list[str]) -> list[str]:
    """Which stages said that they trained."""
    stage, found = "base", []
    for line in lines:
        stage = line.split(": ")[1] if line.startswith("stage ") else stage
        found += [stage] if "masked_prediction" in line and stage not in found else []
    return found


@pytest.fixture(scope="module")
def run(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("s"))


def test_the_matrix_holds_every_task_after_every_stage_as_the_trials_scored_them(run: Run) -> None:
    matrix = run.result.matrix
    assert (matrix.stages, matrix.tasks, matrix.learned_at) == (("base", "bio", "music"), TASKS, (0, 1, 2))
    bio, music = run.trial("1-bio"), run.trial("2-music")
    assert matrix.row(1)["prior"] == bio["probe/prior/prior/macro_f1"]
    assert matrix.row(1)["bio"] == bio["probe/target/bio/macro_f1"]
    assert matrix.row(2) == {
        "prior": music["probe/prior/prior/macro_f1"],
        "bio": music["probe/prior/bio/macro_f1"],  # rehearsed, so a prior task of that trial
        "music": music["probe/target/music/macro_f1"],
    }


def test_the_files_tell_the_same_matrix_and_metrics(run: Run) -> None:
    content = json.loads((run.folder / "sequence.json").read_text())
    assert tuple(map(tuple, content["scores"])) == run.result.matrix.scores
    assert content["metrics"] == run.result.metrics._asdict()
    assert run.result.metrics == continual_metrics(run.result.matrix, content["random_init"])
    with (run.folder / "matrix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("stage") for row in rows] == ["base", "bio", "music"]
    assert [{task: float(score) for task, score in row.items()} for row in rows] == [
        run.result.matrix.row(stage) for stage in range(3)
    ]


def test_every_score_of_the_matrix_has_its_predictions_and_every_look_is_recorded(run: Run) -> None:
    found = [
        read_evaluation(path.parent) for path in (run.storage / "cache").glob("scores-*/evaluation/dev/tasks.json")
    ]
    rows = [{result.name: result.score.score for result in evaluation.results} for evaluation in found]
    assert all(run.result.matrix.row(stage) in rows for stage in range(3))
    uses = [use for use in read_uses(run.storage) if use.purpose == "sequence"]
    assert len(uses) >= 4 and {use.split for use in uses} == {"dev"}  # base, random, two domains


def test_the_old_model_of_a_stage_is_the_result_of_the_one_before(run: Run) -> None:
    first, second = (Path(folder) for folder in run.result.checkpoints.values())
    content = config_hash({"files": [sha256_of(first / "SHA256SUMS")]})
    assert load_checkpoint(second).provenance["base"] == f"base-{content}"
    old, made = load_checkpoint(run.storage / "cache" / f"base-{content}"), load_checkpoint(first)
    assert not changed(*(tensors(c.encoder, c.tokenizer, c.predictor) for c in (old, made)))
    assert changed(tensors(made.encoder), tensors(load_checkpoint(second).encoder))
    assert load_checkpoint(first).provenance["base"] != f"base-{content}"


def test_a_sequence_that_was_cut_off_equals_one_that_was_not(run: Run) -> None:
    assert (trained(run.lines_of_first), trained(run.lines_of_second)) == (["base", "bio"], ["music"])
    whole = run.run(folder=run.root / "whole")
    assert whole.matrix == run.result.matrix
    for name, folder in whole.checkpoints.items():
        one, other = (load_checkpoint(path).encoder for path in (folder, run.result.checkpoints[name]))
        assert not changed(tensors(one), tensors(other))


def test_a_finished_sequence_repeats_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "evaluate_encoder", None)  # calling it would fail
    run.lines.clear()
    assert run.run() == run.result
    assert trained(run.lines) == [] and not any("scoring" in line for line in run.lines)


def test_another_configuration_in_the_same_folder_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="holds a run of another configuration, audio or base"):
        run.run(override(CONFIG, {"optim.lr": 3e-5}))


def test_earlier_domains_are_rehearsed_and_no_stage_trains_on_what_another_holds_out(run: Run) -> None:
    audio = sequence._prepare_audio(run.plan, run.storage / "cache", lambda line: None)
    corpora = [{clip.corpus for clip in ClipStore(shards).clips} for shards in audio.replay]
    assert corpora == [{"prior"}, {"prior", "bio"}]
    scanned = load_domain("music", run.plan.domains[1].data, run.storage / "cache", lambda line: None)
    assert "music/leak.flac" in {clip.clip_id for clip in scanned}
    assert "music/leak.flac" not in {clip.clip_id for clip in ClipStore(audio.domains[1]).clips}


def test_corpora_of_one_name_are_refused(run: Run) -> None:
    audio = sequence._prepare_audio(run.plan, run.storage / "cache", lambda line: None)
    with pytest.raises(ValueError, match="two corpora are called 'prior', so their tasks cannot be told apart"):
        sequence._find_tasks(audio._replace(domains=[audio.domains[0], audio.replay[0]]))
