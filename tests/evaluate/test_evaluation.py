"""An encoder's scores on made tasks, and the comparison of hand-made ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import MemoryStore, make_base, make_store

from sonar.evaluate import run
from sonar.evaluate.features import FeatureCache
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.run import run_probe
from sonar.evaluate.record import Evaluation, TaskResult, read_evaluation, write_evaluation
from sonar.evaluate.run import compare, evaluate_encoder, find_tasks
from sonar.evaluate.scores import TaskScore

CONFIG = ProbeConfig(clip_seconds=0.5)


NOTHING = Predictions(np.array([]), np.array([]), (), np.zeros((0, 0), bool), np.zeros((0, 0), np.float32))


def evaluation(**roles: dict[str, dict[str, float]]) -> Evaluation:
    """Classes of every task; a task scores their mean."""
    return Evaluation(
        tuple(
            TaskResult(task, role, "macro_f1", TaskScore(float(np.mean([*classes.values()])), classes), NOTHING)  # type: ignore[arg-type]
            for role, tasks in roles.items()
            for task, classes in tasks.items()
        )
    )


def corpus(name: str, label: Callable[[int], tuple[str, ...]] | None = None) -> MemoryStore:
    """Low and high tones, a third of them in the dev split."""
    return make_store(
        name,
        24,
        hertz=lambda row: (300.0, 3000.0)[row % 2],
        label=label or (lambda row: (("low",), ("high",))[row % 2]),
        split=lambda row: "dev" if row % 6 < 2 else "train",
    )


BASE = evaluation(
    target={"bio": {"wren": 60.0, "owl": 40.0}},
    prior={"a": {"x": 100.0, "y": 60.0}, "b": {"x": 40.0, "z": 60.0}},
    control={"c": {"u": 50.0}},
)
ADAPTED = evaluation(
    target={"bio": {"wren": 90.0, "owl": 30.0}},
    prior={"a": {"x": 90.0, "y": 30.0}, "b": {"x": 60.0, "z": 50.0}},
    control={"c": {"u": 20.0}},
)


def test_a_change_is_the_one_worked_out_by_hand() -> None:
    """Bio 50 -> 60; a 80 -> 60 loses 25 %, b 50 -> 55 gains 10 %; a/y loses 30 points; a control takes no part."""
    change = compare(BASE, ADAPTED)
    assert (change.plasticity, change.forgetting_rate) == pytest.approx((20.0, 7.5))
    assert (change.worst_task, change.worst_class) == (("a", 25.0), ("a/y", 30.0))
    assert change.retention == pytest.approx({"a": 75.0, "b": 110.0, "c": 40.0})
    assert change.metrics() == pytest.approx(
        {
            "plasticity": 20.0,
            "forgetting_rate": 7.5,
            "forgetting_worst": 25.0,
            "forgetting_worst_class": 30.0,
            "retention/a": 75.0,
            "retention/b": 110.0,
            "retention/c": 40.0,
        }
    )
    assert change.worst() == {"forgetting_worst": "a", "forgetting_worst_class": "a/y"}


def test_an_unchanged_encoder_lost_nothing() -> None:
    change = compare(BASE, BASE)
    assert change[:4] == (0.0, 0.0, ("a", 0.0), ("a/x", 0.0)) and set(change.retention.values()) == {100.0}


def test_an_evaluation_of_other_tasks_is_not_compared() -> None:
    other = evaluation(target={"bio": {"wren": 1.0}}, prior={"b": {"x": 1.0}})
    with pytest.raises(ValueError, match=r"tasks before \['a', 'b'\] and after \['b'\] must be the same"):
        compare(BASE, other)


def test_every_labelled_corpus_is_a_task_in_its_role() -> None:
    unlabelled = corpus("noise", lambda row: ())
    mixed = MemoryStore([*corpus("a").clips, *unlabelled.clips], [*corpus("a").waveforms, *unlabelled.waveforms])
    tasks = find_tasks(corpus("birds"), mixed)
    assert [(task.name, task.role) for task in tasks] == [("birds", "target"), ("a", "prior")]


def test_even_a_random_encoder_tells_low_from_high() -> None:
    tasks = find_tasks(corpus("birds"), corpus("general"))
    found = evaluate_encoder(make_base().encoder, tasks, CONFIG)
    assert found.scores("target") == {"birds": 100.0} and found.scores("prior") == {"general": 100.0}


@pytest.mark.parametrize("lacking", ["target", "prior"])
def test_a_sweep_without_one_of_its_axes_is_refused(lacking: str) -> None:
    silent, speaking = corpus("silent", lambda row: ()), corpus("speaking")
    stores = (silent, speaking) if lacking == "target" else (speaking, silent)
    with pytest.raises(ValueError, match=f"no labelled {lacking} corpus; the sweep's two axes need"):
        evaluate_encoder(make_base().encoder, find_tasks(*stores), CONFIG)


def test_a_split_without_labelled_clips_is_named() -> None:
    tasks = find_tasks(corpus("birds"), corpus("general"))
    with pytest.raises(ValueError, match="task birds has no labelled clip in split 'test'"):
        run.evaluate_task(FeatureCache(make_base().encoder, None), tasks[0], CONFIG, "test")


def test_a_corpus_of_several_labels_is_scored_by_average_precision() -> None:
    """Every clip is of one place, and low or high; the places cannot be heard."""
    places = corpus("birds", lambda row: (("low", "high")[row % 2], ("wood", "field")[row // 6 % 2]))
    tasks = find_tasks(places, corpus("general"))
    assert [task.metric for task in tasks] == ["map", "macro_f1"]
    result = evaluate_encoder(make_base().encoder, tasks, CONFIG).results[0]
    assert result.score.classes["low"] == result.score.classes["high"] == 100.0
    assert result.score.classes["wood"] < 100.0 and result.predictions.truth.sum(axis=1).tolist() == [2] * 8
    assert result.score.score == pytest.approx(np.mean([*result.score.classes.values()]))


def test_the_probe_of_a_final_report_is_chosen_on_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(run, "run_probe", lambda *data: given.append(data) or run_probe(*data))
    three = make_store(
        "birds",
        24,
        hertz=lambda row: (300.0, 3000.0)[row % 2],
        label=lambda row: (("low",), ("high",))[row % 2],
        split=lambda row: ("dev", "test", "train", "train")[row // 2 % 4],
    )
    (task,) = run.labelled_tasks(three, "target")
    for split in ("dev", "test"):
        assert run.evaluate_task(FeatureCache(make_base().encoder, None), task, CONFIG, split).score.score == 100.0
    (_, searched, _, none), (_, scored, _, dev) = given
    assert none is None
    for data, split in ((searched, "dev"), (dev, "dev"), (scored, "test")):
        assert data.clip_ids.tolist() == [clip.clip_id for clip in three.clips if clip.split == split]


def test_a_task_that_cannot_be_scored_is_named() -> None:
    lonely = corpus("birds", lambda row: ("rare",) if row == 2 else (("low",), ("high",))[row % 2])
    with pytest.raises(ValueError, match="task birds: classes rare are not in both"):
        evaluate_encoder(make_base().encoder, find_tasks(lonely, corpus("general")), CONFIG)


def test_an_evaluation_leaves_what_its_scores_are_computed_from(tmp_path: Path) -> None:
    named = corpus("a/../b")  # a corpus may be called what no file can
    found = evaluate_encoder(make_base().encoder, find_tasks(corpus("birds"), named), CONFIG)
    write_evaluation(found, tmp_path / "run" / "dev")
    rows = json.loads((tmp_path / "run" / "dev" / "tasks.json").read_text())
    assert [(row["name"], row["role"], row["metric"], row["score"]) for row in rows] == [
        ("birds", "target", "macro_f1", 100.0),
        ("a/../b", "prior", "macro_f1", 100.0),
    ]
    assert {path.name for path in tmp_path.rglob("*.npz")} == {"birds.npz", "a%2F..%2Fb.npz"}
    read = read_evaluation(tmp_path / "run" / "dev")
    for before, after in zip(found.results, read.results, strict=True):
        assert after[:4] == before[:4]
        for name, value in before.predictions._asdict().items():
            assert np.array_equal(getattr(after.predictions, name), value)
    held_out = [clip for clip in corpus("birds").clips if clip.split == "dev"]
    assert read.results[0].predictions.clip_ids.tolist() == [clip.clip_id for clip in held_out]


def test_a_folder_without_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no evaluation in .*; give the folder of a finished trial"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("probe", ["ridge", "attentive"])
def test_an_evaluation_from_the_cache_is_the_same_without_a_forward_pass(probe: str, tmp_path: Path) -> None:
    encoder, tasks = make_base().encoder, find_tasks(corpus("birds"), corpus("general"))
    config = ProbeConfig(clip_seconds=0.5, probe=probe)
    plain, first = evaluate_encoder(encoder, tasks, config), evaluate_encoder(encoder, tasks, config, tmp_path)
    encoder.register_forward_hook(lambda *_: pytest.fail("a forward pass"))
    second = evaluate_encoder(encoder, tasks, config, tmp_path)
    for one, two, three in zip(plain.results, first.results, second.results, strict=True):
        assert np.array_equal(one.predictions.scores, two.predictions.scores)
        assert np.array_equal(one.predictions.scores, three.predictions.scores)
