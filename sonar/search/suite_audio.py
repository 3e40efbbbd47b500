"""The audio of a suite: its corpora scanned, kept apart where they must be, and sharded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.splits import check_labelled_splits, complete_splits
from sonar.data.stream import ClipStore
from sonar.evaluate.finetune import FinetuneConfig
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.run import Task
from sonar.evaluate.suite import RoleClips, Suite, check_controls
from sonar.evaluate.task import TaskConfig, corpus_path
from sonar.search.prepare import scan_options, shard_corpora
from sonar.search.progress import Say


class SuiteTask(NamedTuple):
    """A task with its audio, and its protocol: fine-tuning, or a probe where there is none."""

    task: Task
    probe: ProbeConfig
    finetune: FinetuneConfig | None


class PreparedSuite(NamedTuple):
    """Tasks over shards, and the clips as the corpora list them."""

    tasks: list[SuiteTask]
    sides: list[RoleClips]


def prepare_suite(suite: Suite, root: Path, cache: Path, say: Say) -> PreparedSuite:
    """Scan and shard the corpora of a suite, whatever is not in the cache yet.

    As in a sweep, training clips that are a held-out clip of any task, or sound as one, are left out.

    Raises:
        FileNotFoundError: a corpus is not there.
        ValueError: a control corpus shares a file or a recording with a training split, or a corpus cannot be scored.
    """
    sides = [RoleClips(task.name, task.role, _load(task, root, cache, say)) for task in suite.tasks]
    check_controls(sides)
    shards = shard_corpora([list(side.clips) for side in sides], cache, say)
    tasks = [
        SuiteTask(Task(config.name, config.role, ClipStore(folder), config.metric), config.probe, config.finetune)
        for config, folder in zip(suite.tasks, shards, strict=True)
    ]
    return PreparedSuite(tasks, sides)


def _load(config: TaskConfig, root: Path, cache: Path, say: Say) -> list[Clip]:
    path = corpus_path(config, root)
    scan = load_corpus(path, domain=config.name, options=scan_options(str(path), cache, say))
    clips = scan.clips
    if config.split_seed is not None:
        clips = complete_splits([clip._replace(split="") for clip in clips], seed=config.split_seed)
    say(f"{config.name}: {path}: {len(clips)} clips, {len(scan.quarantine)} quarantined")
    if not any(clip.labels for clip in clips):
        raise ValueError(f"task {config.name}: no clip of {path} has a label; an unlabelled corpus is no task")
    check_labelled_splits(clips)
    return clips
