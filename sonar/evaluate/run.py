"""Score an encoder on the target and the prior tasks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sonar.data.manifest import Clip
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_batches
from sonar.evaluate.metrics import mean_forgetting, plasticity, worst_forgetting
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.data import ProbeData, class_table
from sonar.evaluate.probes.run import run_probe
from sonar.evaluate.scores import score_predictions
from sonar.model.encoder import BeatsEncoder


class Task(NamedTuple):
    """A labelled probe task: the clips of one corpus in a store."""

    name: str
    role: str  # "target" or "prior"
    store: ClipStore


class ProbeScore(NamedTuple):
    """What a probe reached on the scored split: macro-F1 and accuracy in percent, and F1 per class in percent."""

    macro_f1: float
    accuracy: float
    class_f1: dict[str, float]


class Evaluation(NamedTuple):
    """Scores of one encoder, by task."""

    target: dict[str, ProbeScore]
    prior: dict[str, ProbeScore]


class Change(NamedTuple):
    """How an adapted encoder differs from its base: all in percent (see metrics.py)."""

    plasticity: float
    forgetting_rate: float
    forgetting_worst: float


def labelled_tasks(store: ClipStore, role: str) -> list[Task]:
    """One task per labelled corpus of a store, in the order of their names."""
    return [Task(corpus, role, store) for corpus in sorted({clip.corpus for clip in store.clips if clip.labels})]


def find_tasks(new: ClipStore, prior: ClipStore) -> list[Task]:
    """The tasks of the new store, which are targets, then those of the prior store."""
    return [*labelled_tasks(new, "target"), *labelled_tasks(prior, "prior")]


def evaluate_encoder(encoder: BeatsEncoder, tasks: list[Task], config: ProbeConfig, split: str = "dev") -> Evaluation:
    """Frozen linear probe of every task, fitted on its training split and scored on `split`.

    Raises:
        ValueError: no target or no prior task, or a task whose splits cannot be scored.
    """
    scores: dict[str, dict[str, ProbeScore]] = {"target": {}, "prior": {}}
    for task in tasks:
        train, scored = _probe_data(encoder, task, ("train", split), config)
        try:
            scores[task.role][task.name] = _probe_score(run_probe(train, scored, config))
        except ValueError as error:
            raise ValueError(f"task {task.name}: {error}") from error
    for role, found in scores.items():
        if not found:
            raise ValueError(f"no labelled {role} corpus; the sweep's two axes need a target and a prior probe set")
    return Evaluation(**scores)


def compare(base: Evaluation, adapted: Evaluation) -> Change:
    """Plasticity and forgetting of `adapted` against `base`, from macro-F1."""
    before, after = _macro_f1(base.prior), _macro_f1(adapted.prior)
    return Change(
        plasticity=plasticity(_macro_f1(base.target), _macro_f1(adapted.target)),
        forgetting_rate=mean_forgetting(before, after),
        forgetting_worst=worst_forgetting(before, after),
    )


def _macro_f1(scores: dict[str, ProbeScore]) -> dict[str, float]:
    return {task: score.macro_f1 for task, score in scores.items()}


def _probe_score(predictions: Predictions) -> ProbeScore:
    macro_f1 = score_predictions(predictions, "macro_f1")
    return ProbeScore(macro_f1.score, score_predictions(predictions, "accuracy").score, macro_f1.classes)


def _probe_data(encoder: BeatsEncoder, task: Task, splits: tuple[str, ...], config: ProbeConfig) -> list[ProbeData]:
    """Each of the splits, with the classes of all of them."""
    rows = {split: _labelled_rows(task, split) for split in splits}
    labels = {split: [_single_label(task.store.clips[row]) for row in found] for split, found in rows.items()}
    classes = tuple(sorted({name for found in labels.values() for names in found for name in names}))
    return [
        ProbeData(
            embeddings=embed_batches(encoder, batch_clips(task.store, rows[split], config.clip_seconds)),
            targets=class_table(labels[split], classes),
            classes=classes,
            groups=np.asarray([task.store.clips[row].group for row in rows[split]]),
            clip_ids=np.asarray([task.store.clips[row].clip_id for row in rows[split]]),
        )
        for split in splits
    ]


def _labelled_rows(task: Task, split: str) -> np.ndarray:
    found = [
        row
        for row in task.store.index(split=split)
        if task.store.clips[row].corpus == task.name and task.store.clips[row].labels
    ]
    if not found:
        raise ValueError(f"task {task.name} has no labelled clip in split {split!r}; add some or re-split the corpus")
    return np.asarray(found, dtype=np.int64)


def _single_label(clip: Clip) -> tuple[str, ...]:
    if len(clip.labels) != 1:
        raise ValueError(
            f"clip {clip.clip_id} has labels {', '.join(clip.labels)}; this probe takes one label per clip"
        )
    return clip.labels
