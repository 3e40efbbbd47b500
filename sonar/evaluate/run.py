"""Score an encoder on the target and the prior tasks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sonar.data.manifest import Clip
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_batches
from sonar.evaluate.metrics import mean_forgetting, plasticity, worst_forgetting
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probe import ProbeConfig, ProbeData, linear_probe
from sonar.evaluate.record import Evaluation, Role, TaskResult
from sonar.evaluate.scores import Metric, score_predictions
from sonar.model.encoder import BeatsEncoder


class Task(NamedTuple):
    """A labelled probe task: the clips of one corpus in a store.

    Attributes:
        name: of the task and of its corpus.
        role: target, prior or control.
        store: holds its clips.
        metric: that it is scored in.
    """

    name: str
    role: Role
    store: ClipStore
    metric: Metric = "macro_f1"


class Change(NamedTuple):
    """How an adapted encoder differs from its base: all in percent (see metrics.py)."""

    plasticity: float
    forgetting_rate: float
    forgetting_worst: float


def labelled_tasks(store: ClipStore, role: Role) -> list[Task]:
    """One task per labelled corpus of a store, in the order of their names."""
    return [Task(corpus, role, store) for corpus in sorted({clip.corpus for clip in store.clips if clip.labels})]


def find_tasks(new: ClipStore, prior: ClipStore) -> list[Task]:
    """The tasks of the new store, which are targets, then those of the prior store."""
    return [*labelled_tasks(new, "target"), *labelled_tasks(prior, "prior")]


def evaluate_encoder(encoder: BeatsEncoder, tasks: list[Task], config: ProbeConfig, split: str = "dev") -> Evaluation:
    """Frozen probe of every task, fitted on its training split and scored on `split`.

    Raises:
        ValueError: no target or no prior task, or a task whose splits cannot be scored.
    """
    for role in ("target", "prior"):
        if not any(task.role == role for task in tasks):
            raise ValueError(f"no labelled {role} corpus; the sweep's two axes need a target and a prior probe set")
    return Evaluation(tuple(_evaluate(encoder, task, config, split) for task in tasks))


def compare(base: Evaluation, adapted: Evaluation) -> Change:
    """Plasticity and forgetting of `adapted` against `base`."""
    before, after = base.scores("prior"), adapted.scores("prior")
    return Change(
        plasticity=plasticity(base.scores("target"), adapted.scores("target")),
        forgetting_rate=mean_forgetting(before, after),
        forgetting_worst=worst_forgetting(before, after),
    )


def _evaluate(encoder: BeatsEncoder, task: Task, config: ProbeConfig, split: str) -> TaskResult:
    (train, _), (scored, clips) = (_probe_data(encoder, task, name, config) for name in ("train", split))
    try:
        classes, scores = linear_probe(train, scored, config)
    except ValueError as error:
        raise ValueError(f"task {task.name}: {error}") from error
    predictions = Predictions(
        clip_ids=np.asarray([clip.clip_id for clip in clips]),
        groups=scored.groups,
        classes=classes,
        truth=scored.labels[:, None] == np.asarray(classes),
        scores=scores,
    )
    return TaskResult(task.name, task.role, task.metric, score_predictions(predictions, task.metric), predictions)


def _probe_data(encoder: BeatsEncoder, task: Task, split: str, config: ProbeConfig) -> tuple[ProbeData, list[Clip]]:
    rows = [
        row
        for row in task.store.index(split=split)
        if task.store.clips[row].corpus == task.name and task.store.clips[row].labels
    ]
    if not rows:
        raise ValueError(f"task {task.name} has no labelled clip in split {split!r}; add some or re-split the corpus")
    index = np.asarray(rows, dtype=np.int64)
    clips = [task.store.clips[row] for row in rows]
    data = ProbeData(
        embeddings=embed_batches(encoder, batch_clips(task.store, index, config.clip_seconds)),
        labels=np.asarray([_single_label(clip.labels, clip.clip_id) for clip in clips]),
        groups=np.asarray([clip.group for clip in clips]),
    )
    return data, clips


def _single_label(labels: tuple[str, ...], clip_id: str) -> str:
    if len(labels) != 1:
        raise ValueError(f"clip {clip_id} has labels {', '.join(labels)}; this probe takes one label per clip")
    return labels[0]
