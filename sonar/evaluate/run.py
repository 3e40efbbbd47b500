"""Score an encoder on the target and the prior tasks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_batches
from sonar.evaluate.metrics import mean_forgetting, plasticity, worst_forgetting
from sonar.evaluate.probe import ProbeConfig, ProbeData, ProbeScore, linear_probe
from sonar.model.encoder import BeatsEncoder


class Task(NamedTuple):
    """A labelled probe task: the clips of one corpus in a store."""

    name: str
    role: str  # "target" or "prior"
    store: ClipStore


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
    is_labelled = pc.greater(pc.list_value_length(store.clips.column("labels")), 0)
    corpora = store.clips.column("corpus").filter(is_labelled).unique().to_pylist()
    return [Task(corpus, role, store) for corpus in sorted(corpora)]


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
        train, scored = (_probe_data(encoder, task, name, config) for name in ("train", split))
        try:
            scores[task.role][task.name] = linear_probe(train, scored, config)
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


def _probe_data(encoder: BeatsEncoder, task: Task, split: str, config: ProbeConfig) -> ProbeData:
    columns = task.store.clips
    is_used = pc.and_(
        pc.equal(columns.column("corpus"), task.name), pc.greater(pc.list_value_length(columns.column("labels")), 0)
    )
    index = np.intersect1d(task.store.index(split=split), np.flatnonzero(is_used.to_numpy()))
    if not len(index):
        raise ValueError(f"task {task.name} has no labelled clip in split {split!r}; add some or re-split the corpus")
    clips = columns.take(index)
    return ProbeData(
        embeddings=embed_batches(encoder, batch_clips(task.store, index, config.clip_seconds)),
        labels=np.asarray([_single_label(clip.labels, clip.clip_id) for clip in clips]),
        groups=np.asarray([clip.group for clip in clips]),
    )


def _single_label(labels: tuple[str, ...], clip_id: str) -> str:
    if len(labels) != 1:
        raise ValueError(f"clip {clip_id} has labels {', '.join(labels)}; this probe takes one label per clip")
    return labels[0]
