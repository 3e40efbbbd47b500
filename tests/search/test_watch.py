"""A trial that is watched: its curve, what it costs nothing to resume, and training that does not notice."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_prepare import config
from tiny import changed, tensors

from sonar.checkpoint import load_checkpoint
from sonar.data.stream import ClipStore
from sonar.data.synth import write_synth_corpus
from sonar.evaluate import features
from sonar.evaluate.curve import read_curve
from sonar.evaluate.ledger import read_uses
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.experiment import TrialConfig
from sonar.search.base import content_hash
from sonar.search.prepare import Prepared, Sources, prepare, read_baseline
from sonar.search.trial import TrialResult, run_trial
from sonar.train.launch import Around
from sonar.train.loop import StepReport
from sonar.train.stages import TrainingStopped

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

EVERY, STEPS = 2, 6


def watched(**changes: object) -> TrialConfig:
    steps = {"training.model_steps": STEPS, "training.checkpoint_every": 3, "training.interpolation": 0.5}
    return config(**{"evaluation.every": EVERY, "optim.lr": 1e-2} | steps | changes)


class Killed(BaseException):
    """In place of a signal: nothing of the run but its files is left."""


@pytest.fixture(scope="module")
def prepared(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root = tmp_path_factory.mktemp("watch")
    for name in ("bio", "prior"):
        write_synth_corpus(name, root / name, clips_per_class=6)
    sources = Sources("bio", str(root / "bio"), (str(root / "prior"),))
    return prepare(config(), sources, root / "runs", lambda line: None)


class Ended:
    """A watched trial, what it reported and where it lies."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self.folder, self.reports = folder, list[StepReport]()
        self.result = run_trial(watched(), prepared, folder, self.reports.append)


@pytest.fixture(scope="module")
def ended(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return Ended(prepared, tmp_path_factory.mktemp("trial") / "run")


def deterministic(result: TrialResult) -> dict[str, float]:
    return {
        n: v for n, v in result.metrics.items() if not n.endswith(("seconds", "clips_per_second", "input_wait_share"))
    }


def test_the_curve_runs_from_the_base_to_what_the_trial_leaves(prepared: Prepared, ended: Ended) -> None:
    curve = read_curve(ended.folder)
    assert [(point.stage, point.step) for point in curve] == [("base", 0), ("model", 2), ("model", 4), ("end", 6)]
    assert curve[0][2:5] == (0.0, 0.0, 0.0)
    for point, evaluation in (
        (curve[0], read_baseline(prepared.baseline)),
        (curve[-1], read_evaluation(split_folder(ended.folder, "dev"))),
    ):
        assert point.scores == {result.name: result.score.score for result in evaluation.results}
    metrics = ended.result.metrics
    assert curve[-1][2:5] == tuple(metrics[n] for n in ("plasticity", "forgetting_rate", "forgetting_worst"))
    rates = [point.forgetting_rate for point in curve[1:]]
    assert metrics["curve/stability_gap"] == max(rates) - rates[-1]


def test_watched_steps_show_their_point(ended: Ended) -> None:
    points = {point.step: point for point in read_curve(ended.folder) if point.stage == "model"}
    shown = {r.step: r.metrics for r in ended.reports if r.stage == "model" and "forgetting_rate" in r.metrics}
    assert shown.keys() == points.keys()
    for step, point in points.items():
        assert (shown[step]["plasticity"], shown[step]["forgetting_rate"]) == point[2:4]
    assert not [r for r in ended.reports if r.stage != "model" and "forgetting_rate" in r.metrics]


def test_training_does_not_notice_that_it_is_watched(prepared: Prepared, ended: Ended, tmp_path: Path) -> None:
    plain = run_trial(watched(**{"evaluation.every": 0}), prepared, tmp_path / "run", lambda step: None)
    assert read_curve(tmp_path / "run") == []
    one, other = (load_checkpoint(result.checkpoint).encoder for result in (plain, ended.result))
    assert not changed(tensors(one), tensors(other))
    assert deterministic(plain).items() <= deterministic(ended.result).items()


@pytest.mark.parametrize(("stage", "step"), [("tokenizer", 4), ("model", 5), ("model", STEPS)])
def test_a_killed_trial_ends_as_one_that_was_not(
    stage: str, step: int, prepared: Prepared, ended: Ended, tmp_path: Path
) -> None:
    """The state is saved every third step: step 4 of the model stage is trained and evaluated twice."""

    def kill(report: StepReport) -> None:
        if (report.stage, report.step) == (stage, step):
            raise Killed

    with pytest.raises(Killed):
        run_trial(watched(), prepared, tmp_path / "run", kill)
    assert_ends_as(ended, prepared, tmp_path / "run")


@pytest.mark.parametrize(("stage", "step"), [("tokenizer", 4), ("model", 5), ("model", STEPS)])
def test_a_trial_that_was_stopped_ends_as_one_that_was_not_and_trains_no_step_twice(
    stage: str, step: int, prepared: Prepared, ended: Ended, tmp_path: Path
) -> None:
    reports = list[StepReport]()

    def is_stopping() -> bool:
        return (reports[-1].stage, reports[-1].step) == (stage, step)

    with pytest.raises(TrainingStopped, match=f"after step {step} of {stage}"):
        run_trial(watched(), prepared, tmp_path / "run", reports.append, Around(is_stopping=is_stopping))
    before = len(reports)
    assert_ends_as(ended, prepared, tmp_path / "run", reports)
    assert before + len(reports[before:]) == len(ended.reports)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_trial_whose_saved_state_is_damaged_begins_anew_and_ends_the_same(
    damage: str, prepared: Prepared, ended: Ended, tmp_path: Path
) -> None:
    reports = list[StepReport]()
    stop = Around(is_stopping=lambda: reports[-1].stage == "model")
    with pytest.raises(TrainingStopped):
        run_trial(watched(), prepared, tmp_path / "run", reports.append, stop)
    state = tmp_path / "run" / "state.pt"
    whole = state.read_bytes()
    state.write_bytes({"cut": whole[: len(whole) // 2], "flipped": b"XX" + whole[2:], "empty": b""}[damage])
    reports.clear()
    assert_ends_as(ended, prepared, tmp_path / "run", reports)
    assert len(reports) == len(ended.reports)
    assert state.with_suffix(".damaged").exists() and not state.exists()


def assert_ends_as(ended: Ended, prepared: Prepared, folder: Path, reports: list[StepReport] | None = None) -> None:
    resumed = run_trial(watched(), prepared, folder, (reports if reports is not None else []).append)
    assert deterministic(resumed) == deterministic(ended.result) and resumed.worst == ended.result.worst
    assert (folder / "curve.jsonl").read_bytes() == (ended.folder / "curve.jsonl").read_bytes()


def test_the_worst_and_what_is_retained_are_named_in_the_result(prepared: Prepared, ended: Ended) -> None:
    before, after = read_baseline(prepared.baseline), read_evaluation(split_folder(ended.folder, "dev"))
    result: dict[str, Any] = json.loads((ended.folder / "result.json").read_text())
    task, _, name = result["worst"]["forgetting_worst_class"].partition("/")
    lost = {key: score - after.classes("prior")[task][key] for key, score in before.classes("prior")[task].items()}
    assert result["metrics"]["forgetting_worst_class"] == lost[name] == max(lost.values())
    assert result["worst"]["forgetting_worst"] == "prior"
    assert result["metrics"]["retention/prior"] == pytest.approx(100 - result["metrics"]["forgetting_worst"])


def test_the_base_is_not_scored_again_and_no_split_but_dev_is_asked_for(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a sample of a held-out clip of test read."""
    embedded, asked, heard = [], [], set()
    real = features.embed_layers

    def embed(encoder: Any, batches: Any) -> Any:
        embedded.append(encoder)
        return real(encoder, batches)

    index = ClipStore.index
    monkeypatch.setattr(features, "embed_layers", embed)
    monkeypatch.setattr(ClipStore, "index", lambda store, *, split: asked.append(split) or index(store, split=split))
    waveform = ClipStore.waveform

    def hear(store: ClipStore, row: int, *of: Any) -> Any:
        heard.add(store.clips[row].split)
        return waveform(store, row, *of)

    monkeypatch.setattr(ClipStore, "waveform", hear)
    ledger = Path(prepared.baseline).parents[1]
    before = len(read_uses(ledger))
    result = run_trial(watched(), prepared, tmp_path / "run", lambda step: None)
    assert heard == {"train", "dev"}
    (use,) = read_uses(ledger)[before:]
    assert (use.split, use.purpose, use.checkpoint) == (
        "dev",
        "trial run, every 2 steps",
        content_hash([Path(result.checkpoint)]),
    )
    assert read_uses(ledger)[0].purpose == "base of trials" and {u.split for u in read_uses(ledger)} == {"dev"}
    assert len(embedded) == 3 * 2 * 2  # points, tasks, splits
    assert set(asked) == {"train", "dev"}
