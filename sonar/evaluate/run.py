"""Score an encoder on the target and the prior tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sonar.data.stream import ClipStore
from sonar.evaluate.features import FeatureCache, Features
from sonar.evaluate.metrics import Scores, Worst, forgetting_rates, mean_forgetting, plasticity, worst_class, worst_task
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.data import ProbeData, class_table
from sonar.evaluate.probes.run import run_probe
from sonar.evaluate.record import Evaluation, Role, TaskResult
from sonar.evaluate.scores import Metric, score_predictions
from sonar.model.encoder import BeatsEncoder


class Task(NamedTuple):
    """A labelled probe task: the labelled clips of a store, or of one corpus in it.

    Attributes:
        name: of the task.
        role: target, prior or control.
        store: holds its clips.
        metric: that it is scored in.
        corpus: whose clips they are; None: all that the store has.
    """

    name: str
    role: Role
    store: ClipStore
    metric: Metric = "macro_f1"
    corpus: str | None = None


class Change(NamedTuple):
    """How an adapted encoder differs from its base (see metrics.py).

    Attributes:
        plasticity: mean gain over the target tasks, percent.
        forgetting_rate: mean over the prior tasks, percent.
        worst_task: prior task that lost most, percent.
        worst_class: class of a prior task that lost most, points.
        retention: of every prior and control task, percent.
    """

    plasticity: float
    forgetting_rate: float
    worst_task: Worst
    worst_class: Worst
    retention: dict[str, float]

    def metrics(self) -> dict[str, float]:
        """Its numbers by the names that trials, journals and reports use."""
        return {
            "plasticity": self.plasticity,
            "forgetting_rate": self.forgetting_rate,
            "forgetting_worst": self.worst_task.lost,
            "forgetting_worst_class": self.worst_class.lost,
            **{f"retention/{task}": kept for task, kept in self.retention.items()},
        }

    def worst(self) -> dict[str, str]:
        """The names behind its worst numbers."""
        return {"forgetting_worst": self.worst_task.name, "forgetting_worst_class": self.worst_class.name}


def labelled_tasks(store: ClipStore, role: Role) -> list[Task]:
    """One task per labelled corpus of a store, in the order of their names.

    A corpus with a clip of several labels is scored by mean average precision, another one by macro-F1.
    """
    num_labels = pc.list_value_length(store.clips.column("labels"))
    clips = pa.table({"corpus": store.clips.column("corpus"), "num_labels": num_labels})
    most = clips.group_by("corpus").aggregate([("num_labels", "max")]).sort_by("corpus").to_pylist()
    return [
        Task(row["corpus"], role, store, "map" if row["num_labels_max"] > 1 else "macro_f1", row["corpus"])
        for row in most
        if row["num_labels_max"]
    ]


def find_tasks(new: ClipStore, prior: ClipStore) -> list[Task]:
    """The tasks of the new store, which are targets, then those of the prior store."""
    return [*labelled_tasks(new, "target"), *labelled_tasks(prior, "prior")]


def evaluate_encoder(
    encoder: BeatsEncoder, tasks: list[Task], config: ProbeConfig, cache: Path | None = None
) -> Evaluation:
    """Frozen probe of every task, fitted on its training split and scored on dev: what a search may look at.

    Args:
        encoder: frozen.
        tasks: of every role.
        config: of the probe.
        cache: folder of `FeatureCache`; None: features are not kept.

    Raises:
        ValueError: no target or no prior task, or a task whose splits cannot be scored.
    """
    for role in ("target", "prior"):
        if not any(task.role == role for task in tasks):
            raise ValueError(f"no labelled {role} corpus; the sweep's two axes need a target and a prior probe set")
    features = FeatureCache(encoder, cache)
    return Evaluation(tuple(evaluate_task(features, task, config, "dev") for task in tasks))


def evaluate_task(features: Features, task: Task, config: ProbeConfig, split: str) -> TaskResult:
    """Frozen probe of one task: fitted on its training split, scored on `split`.

    Where the scored split is test, the probe's candidates are chosen on dev; where it is dev, within training clips.

    Raises:
        ValueError: the task has no labelled clip in a split, or cannot be scored; names the task.
    """
    return score_probe(task, probe_data(features, task, splits_for(split), config), config, split)


def splits_for(scored: str) -> tuple[str, ...]:
    """The splits that scoring one of them takes: dev is chosen on where test is scored."""
    return ("train", "dev", "test") if scored == "test" else ("train", scored)


def score_probe(task: Task, found: Mapping[str, ProbeData], config: ProbeConfig, split: str) -> TaskResult:
    """The same of what `probe_data` gave of `splits_for(split)`.

    Raises:
        ValueError: the task cannot be scored; names it.
    """
    try:
        predictions = run_probe(found["train"], found[split], config, found["dev"] if split == "test" else None)
        score = score_predictions(predictions, task.metric)
    except ValueError as error:
        raise ValueError(f"task {task.name}: {error}") from error
    return TaskResult(task.name, task.role, task.metric, score, predictions)


def compare(base: Evaluation, adapted: Evaluation) -> Change:
    """Plasticity and forgetting of `adapted` against `base`."""
    before, after = base.scores("prior"), adapted.scores("prior")
    kept = {**forgetting_rates(before, after), **_control_rates(base.scores("control"), adapted.scores("control"))}
    return Change(
        plasticity=plasticity(base.scores("target"), adapted.scores("target")),
        forgetting_rate=mean_forgetting(before, after),
        worst_task=worst_task(before, after),
        worst_class=worst_class(base.classes("prior"), adapted.classes("prior")),
        retention={task: 100.0 - rate for task, rate in kept.items()},
    )


def _control_rates(before: Scores, after: Scores) -> dict[str, float]:
    return forgetting_rates(before, after) if before or after else {}


class Labelled(NamedTuple):
    """The labelled clips of one split of a task.

    Attributes:
        rows: (N,) int64 of the task's store.
        targets: (N, C) bool.
        classes: C names, of all splits that were asked for.
        groups: (N,) str, recording groups.
        clip_ids: (N,) str.
    """

    rows: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    clip_ids: np.ndarray


def labelled_splits(task: Task, splits: tuple[str, ...]) -> dict[str, Labelled]:
    """Each of the splits, with the classes of all of them.

    Raises:
        ValueError: the task has no labelled clip in a split.
    """
    rows = {split: _labelled_rows(task, split) for split in splits}
    clips = {split: task.store.clips.take(found) for split, found in rows.items()}
    classes = tuple(sorted({label for found in clips.values() for clip in found for label in clip.labels}))
    return {
        split: Labelled(
            rows[split],
            class_table([clip.labels for clip in clips[split]], classes),
            classes,
            np.asarray([clip.group for clip in clips[split]]),
            np.asarray([clip.clip_id for clip in clips[split]]),
        )
        for split in splits
    }


def probe_data(features: Features, task: Task, splits: tuple[str, ...], config: ProbeConfig) -> dict[str, ProbeData]:
    """What a probe is given of each split; errors as `labelled_splits`."""
    return {
        split: ProbeData(features.of_probe(task.store, found.rows, config), *found[1:])
        for split, found in labelled_splits(task, splits).items()
    }


def _labelled_rows(task: Task, split: str) -> np.ndarray:
    columns = task.store.clips
    is_used = pc.greater(pc.list_value_length(columns.column("labels")), 0)
    if task.corpus is not None:
        is_used = pc.and_(is_used, pc.equal(columns.column("corpus"), task.corpus))
    found = np.intersect1d(task.store.index(split=split), np.flatnonzero(is_used.to_numpy()))
    if not len(found):
        raise ValueError(f"task {task.name} has no labelled clip in split {split!r}; add some or re-split the corpus")
    return found
