"""A model on a suite of made corpora: scores, the use of test, and what may not be scored."""

import contextlib
import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_base
from typer.testing import CliRunner

from sonar.checkpoint import load_checkpoint, save_checkpoint
from sonar.cli.app import app
from sonar.data.corpora import load_corpus
from sonar.data.manifest import write_manifest
from sonar.data.synth import write_synth_corpus
from sonar.evaluate.finetune import finetune_task
from sonar.evaluate.ledger import read_uses
from sonar.evaluate.record import read_evaluation
from sonar.evaluate.suite import FoundSuite, read_suite
from sonar.search import scoring
from sonar.search.mixture import MIXTURE_FILE
from sonar.search.prepare import cache_of
from sonar.search.scoring import Request, evaluate_suite, find_root
from sonar.search.suite_audio import prepare_suite

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

SUITE = """
name: made
probe: {clip_seconds: 1.0}
tasks:
  - {name: birds, role: target, corpus: bio}
  - {name: scenes, role: prior, corpus: prior, metric: map}
  - {name: songs, role: control, corpus: music, metric: accuracy}
"""


class Made:
    """Corpora, a suite of them, two models and a storage."""

    def __init__(self, root: Path) -> None:
        self.root, self.storage = root, root / "runs"
        for name in ("bio", "prior", "music"):
            write_synth_corpus(name, root / name, clips_per_class=12)
        clips = load_corpus(root / "prior", domain="prior").clips  # each also low or high in the order of its class
        twice = [c._replace(labels=(*c.labels, ("even", "odd")[n // 2 % 2])) for n, c in enumerate(clips)]
        write_manifest(twice, root / "prior" / "manifest.parquet")
        (root / "suite.yaml").write_text(SUITE, encoding="utf-8")
        for seed in (0, 1):
            save_checkpoint(make_base(seed), root / f"model-{seed}")

    def request(self, **values: Any) -> Request:
        suite = FoundSuite(read_suite(self.root / "suite.yaml"), self.root)
        return Request(self.root / "model-1", suite, self.root)._replace(**values)

    def score(self, storage: Path | None = None, **values: Any) -> scoring.Report:
        return evaluate_suite(self.request(**values), storage or self.storage, lambda line: None)


@pytest.fixture(scope="module")
def made(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("suite"))


def test_every_task_is_scored_in_its_metric_and_against_the_base(made: Made) -> None:
    alone, base = made.score(), made.score(model=made.root / "model-0")
    both = made.score(against=made.root / "model-0")
    assert [(row.name, row.role, row.metric) for row in both.rows] == [
        ("birds", "target", "macro_f1"),
        ("scenes", "prior", "map"),
        ("songs", "control", "accuracy"),
    ]
    assert both.change is not None and alone.change is None
    for row, single, before in zip(both.rows, alone.rows, base.rows, strict=True):
        assert (row.score, row.base) == (single.score, before.score)
        assert row.change == pytest.approx(100 * (row.score - before.score) / before.score)
        assert row.interval is not None and row.interval.low <= row.score <= row.interval.high
    target, prior, control = both.rows
    assert both.change.plasticity == pytest.approx(target.change)
    assert both.change.forgetting_rate == pytest.approx(-(prior.change or 0.0))
    assert both.change.retention == pytest.approx({r.name: 100 + (r.change or 0.0) for r in (prior, control)})
    assert {"even", "odd"} <= set(both.evaluation.results[1].predictions.classes)


def test_a_second_look_computes_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made.score()
    monkeypatch.setattr(scoring, "evaluate_task", None)  # calling it would fail
    again = made.score()
    assert [row[:5] for row in again.rows] == [row[:5] for row in first.rows]


def test_large_splits_are_embedded_by_the_cluster_with_the_same_scores(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = made.score(tmp_path / "here")
    monkeypatch.setattr(scoring, "SPREAD_FROM", 1)
    monkeypatch.setattr("sonar.evaluate.features.embed_layers", lambda *_: pytest.fail("embedded in this process"))
    spread = made.score(tmp_path / "spread")
    for one, other in zip(here.evaluation.results, spread.evaluation.results, strict=True):
        assert list(one.predictions.clip_ids) == list(other.predictions.clip_ids)
        np.testing.assert_allclose(one.predictions.scores, other.predictions.scores, rtol=1e-3, atol=1e-3)


def test_a_task_may_be_fine_tuned_beside_its_frozen_twin(made: Made) -> None:
    tuned = "  - {name: birds-tuned, role: target, corpus: bio, finetune: {epochs: 1, clip_seconds: 1.0, lrs: [1e-3]}}"
    path = made.root / "tuned.yaml"
    path.write_text(f"{SUITE.split('  - {name: scenes')[0]}{tuned}\n", encoding="utf-8")
    suite = read_suite(path)
    frozen, changed = made.score(suite=FoundSuite(suite, made.root)).evaluation.results
    _, (task, _, config) = prepare_suite(suite, made.root, cache_of(made.storage), lambda line: None).tasks
    assert config is not None
    alone = finetune_task(load_checkpoint(made.root / "model-1").encoder, task, config, "dev")
    np.testing.assert_array_equal(changed.predictions.scores, alone.predictions.scores)
    assert not np.array_equal(changed.predictions.scores, frozen.predictions.scores)
    assert list(changed.predictions.clip_ids) == list(frozen.predictions.clip_ids)


def test_every_look_is_recorded_and_a_final_report_tells_the_earlier_ones(made: Made, tmp_path: Path) -> None:
    made.score(tmp_path)
    first = made.score(tmp_path, split="test", final=True, against=made.root / "model-0")
    second = made.score(tmp_path, split="test", final=True)
    uses = read_uses(tmp_path)
    one, other = first.checkpoint, uses[2].checkpoint
    assert [(use.checkpoint, use.split, use.purpose) for use in uses] == [
        (one, "dev", "evaluate"),
        (one, "test", "final report"),
        (other, "test", "final report"),
        (one, "test", "final report"),
    ]
    assert one != other and {use.suite for use in uses} == {"made"}
    assert (first.earlier_tests, second.earlier_tests) == ({}, {one: 1, other: 1})


@pytest.mark.parametrize(("split", "final"), [("test", False), ("dev", True)])
def test_the_test_split_is_for_the_final_report_alone(split: str, final: bool, made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the test split is for the final report alone: give --split test and --final"):
        made.score(tmp_path, split=split, final=final)
    assert read_uses(tmp_path) == []


def test_another_split_is_refused(made: Made) -> None:
    with pytest.raises(ValueError, match="split is 'train'; a model is scored on dev, or on test in a final report"):
        made.score(split="train")


def test_a_model_that_heard_a_clip_is_not_scored_on_it(made: Made, tmp_path: Path) -> None:
    """The folder of a trial, whose mixture holds a clip of the control corpus."""
    shutil.copytree(made.root / "model-1", tmp_path / "trial" / "checkpoint")
    songs = load_corpus(made.root / "music", domain="music").clips
    birds = load_corpus(made.root / "bio", domain="bio").clips
    heard = [clip for clip in birds if clip.split == "train"]
    for clips, is_refused in ((heard, False), ([*heard, songs[0]], True)):
        link = made.root / "manifest.parquet"
        write_manifest(clips, link)
        link.rename(tmp_path / "trial" / MIXTURE_FILE)
        if not is_refused:
            assert made.score(model=tmp_path / "trial").checkpoint == made.score().checkpoint
            continue
        with pytest.raises(ValueError, match="control task songs: the model was trained on the file of 1 clips"):
            made.score(model=tmp_path / "trial")


def test_a_control_corpus_with_a_training_clip_of_another_task_is_refused(made: Made, tmp_path: Path) -> None:
    for name in ("bio", "prior", "music"):
        shutil.copytree(made.root / name, tmp_path / name)
    trained = next(c for c in load_corpus(tmp_path / "bio", domain="bio").clips if c.split == "train")
    with (tmp_path / "music" / "metadata.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    shutil.copy(trained.path, tmp_path / "music" / first["file"])
    with pytest.raises(ValueError, match=r"control task songs: the file of clip music/.* is in the training split of"):
        made.score(root=tmp_path)


def test_new_splits_come_from_the_seed(made: Made) -> None:
    def test_ids(seed: int) -> set[str]:
        text = SUITE.replace("corpus: bio}", f"corpus: bio, split_seed: {seed}}}")
        (made.root / "seeded.yaml").write_text(text, encoding="utf-8")
        suite = FoundSuite(read_suite(made.root / "seeded.yaml"), made.root)
        return set(made.score(suite=suite).evaluation.results[0].predictions.clip_ids)

    assert test_ids(1) == test_ids(1) != test_ids(2)


def without(role: str, change: Callable[[str], str] = lambda line: "") -> str:
    return "".join(change(line) if f"role: {role}" in line else line for line in SUITE.splitlines(keepends=True))


def test_a_suite_without_a_prior_task_states_no_change(made: Made) -> None:
    (made.root / "small.yaml").write_text(without("prior"), encoding="utf-8")
    suite = FoundSuite(read_suite(made.root / "small.yaml"), made.root)
    assert [row.name for row in made.score(suite=suite).rows] == ["birds", "songs"]
    with pytest.raises(
        ValueError, match="suite made has no prior task, so no change can be stated; leave --against out"
    ):
        made.score(suite=suite, against=made.root / "model-0")


def test_an_unlabelled_corpus_is_no_task(made: Made, tmp_path: Path) -> None:
    clips = load_corpus(made.root / "music", domain="music").clips
    write_manifest([clip._replace(labels=()) for clip in clips], made.root / "music" / "bare.csv")
    (made.root / "bare.yaml").write_text(SUITE.replace("corpus: music", "corpus: music/bare.csv"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"task songs: no clip of .*bare.csv has a label; an unlabelled corpus is no task"
    ):
        made.score(suite=FoundSuite(read_suite(made.root / "bare.yaml"), made.root))


def test_the_root_is_the_one_given_then_the_environments_then_beside_the_file(made: Made) -> None:
    suite = made.request().suite
    assert find_root(Path("a"), suite, {"SONAR_AUDIO": "b"}) == Path("a")
    assert find_root(None, suite, {"SONAR_AUDIO": "b"}) == Path("b")
    assert find_root(None, suite, {}) == made.root
    with pytest.raises(ValueError, match="suite made names corpora below a root: give --root, or set SONAR_AUDIO"):
        find_root(None, suite._replace(folder=None), {})


def test_the_command_prints_a_table_or_json_and_leaves_the_predictions(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonar.search.run.ray_session", lambda address: contextlib.nullcontext())
    command = ["evaluate", str(made.root / "model-1"), "--suite", str(made.root / "suite.yaml"), "--split", "test"]
    command += ["--final", "--against", str(made.root / "model-0"), "--storage", str(tmp_path / "runs")]
    told = CliRunner().invoke(app, [*command, "--json", "--out", str(tmp_path / "out")], catch_exceptions=False)
    report = json.loads(told.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    scores = {task["name"]: task["score"] for task in report["tasks"]}
    left = read_evaluation(tmp_path / "out" / "evaluation" / "test")
    assert scores == {result.name: result.score.score for result in left.results}
    assert set(report["change"]) >= {"plasticity", "forgetting_rate", "forgetting_worst_class", "worst"}
    shown = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    for name, score in scores.items():
        (row,) = [line for line in shown.splitlines() if line.startswith(f"│ {name} ")]
        assert f"{score:.1f}" in row
    assert "the test split of made had been used 2 times before, for the checkpoints" in shown
    assert report["checkpoint"] in shown and "worst class: scenes/" in shown
