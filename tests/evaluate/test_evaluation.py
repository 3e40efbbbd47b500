"""An encoder's scores on made tasks, and the comparison of hand-made ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import MemoryStore, make_base, make_store

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probe import ProbeConfig
from sonar.evaluate.record import Evaluation, TaskResult, read_evaluation, write_evaluation
from sonar.evaluate.run import Change, compare, evaluate_encoder, find_tasks
from sonar.evaluate.scores import TaskScore

CONFIG = ProbeConfig(clip_seconds=0.5)


NOTHING = Predictions(np.array([]), np.array([]), (), np.zeros((0, 0), bool), np.zeros((0, 0), np.float32))


def evaluation(target: dict[str, float], prior: dict[str, float]) -> Evaluation:
    scores = [("target", *item) for item in target.items()] + [("prior", *item) for item in prior.items()]
    return Evaluation(
        tuple(TaskResult(task, role, "macro_f1", TaskScore(score, {}), NOTHING) for role, task, score in scores)  # type: ignore[arg-type]
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


def test_plasticity_and_forgetting_are_those_of_the_formulas() -> None:
    base = evaluation({"bio": 50.0}, {"a": 80.0, "b": 50.0})
    adapted = evaluation({"bio": 60.0}, {"a": 60.0, "b": 55.0})
    change = compare(base, adapted)
    assert change == pytest.approx(Change(plasticity=20.0, forgetting_rate=7.5, forgetting_worst=25.0))
    assert compare(base, base) == (0.0, 0.0, 0.0)


def test_an_evaluation_of_other_tasks_is_not_compared() -> None:
    with pytest.raises(ValueError, match=r"tasks before \['a'\] and after \['b'\] must be the same"):
        compare(evaluation({"bio": 1.0}, {"a": 1.0}), evaluation({"bio": 1.0}, {"b": 1.0}))


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
        evaluate_encoder(make_base().encoder, tasks, CONFIG, split="test")


def test_a_clip_of_several_labels_is_named() -> None:
    double = corpus("birds", lambda row: ("low", "high") if row == 7 else ("low",))
    with pytest.raises(ValueError, match=r"clip birds/7.wav has labels low, high; this probe takes one label"):
        evaluate_encoder(make_base().encoder, find_tasks(double, corpus("general")), CONFIG)


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
