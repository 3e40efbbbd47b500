"""One task of a suite as its file names it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from sonar.evaluate.finetune import FinetuneConfig
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.record import Role
from sonar.evaluate.scores import Metric

MANIFESTS = ("manifest.parquet", "manifest.csv")  # what `sonar data import` and `scan` write into a corpus's folder


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """One labelled corpus and how an encoder is scored on it.

    Attributes:
        name: of the task.
        role: target: of the new domain; prior: what must not be forgotten; control: in no training stream at all, so
            that it shows what an adaptation does to audio that nobody rehearsed.
        corpus: manifest or folder, relative to the suite's root.
        metric: macro_f1, accuracy (of one label a clip) or map.
        probe: protocol: kind of probe, layer, clip_seconds and the rest of `ProbeConfig`.
        finetune: the encoder is fine-tuned so instead of being probed; None: it stays frozen.
        split_seed: splits are made anew by recording group from this seed; None: those of the corpus, and where it has
            none, made from seed 0.
    """

    name: str
    role: Role
    corpus: str
    metric: Metric = "macro_f1"
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    finetune: FinetuneConfig | None = None
    split_seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse a name that cannot stand in tables and file names."""
        if not re.fullmatch(r"[\w-]+", self.name):
            raise ValueError(f"task name {self.name!r}: give letters, digits, _ and - only")
        if not self.corpus:
            raise ValueError(f"task {self.name} names no corpus; give a manifest or folder, relative to the root")


def corpus_path(task: TaskConfig, root: Path) -> Path:
    """The manifest in the folder of the task's corpus, or the folder or manifest that is named itself.

    Raises:
        FileNotFoundError: there is nothing.
    """
    named = root / task.corpus
    if not named.exists():
        raise FileNotFoundError(
            f"task {task.name}: no corpus at {named}; the root is {root}: give another one with --root or SONAR_AUDIO"
        )
    return next((named / name for name in MANIFESTS if (named / name).is_file()), named)
