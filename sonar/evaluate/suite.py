"""Suites: which tasks an encoder is scored on, in which role, read from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from sonar.config import from_dict, override, read_yaml
from sonar.config_errors import ConfigError, check_mapping
from sonar.data.manifest import Clip
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.record import Role
from sonar.evaluate.task import TaskConfig

SUFFIX = ".yaml"
_KEPT_APART = (("sha256", "file"), ("group", "recording group"))


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks that are scored together.

    Attributes:
        name: of the suite.
        tasks: one or more.
        probe: protocol of every task, where the task itself says nothing else.
    """

    name: str
    tasks: tuple[TaskConfig, ...]
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        """Refuse tasks of one name, and a corpus in two roles."""
        if not self.tasks:
            raise ValueError(f"suite {self.name} has no task; name one or more under tasks")
        names = [task.name for task in self.tasks]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"suite {self.name} has two tasks called {doubled[0]}; give them different names")
        roles: dict[str, Role] = {}
        for task in self.tasks:
            corpus = Path(task.corpus).as_posix()
            if roles.setdefault(corpus, task.role) != task.role:
                raise ValueError(
                    f"suite {self.name}: corpus {corpus} is a {roles[corpus]} and a {task.role} task; a corpus has one "
                    "role, and a control corpus is no part of any training stream"
                )

    def of(self, role: Role) -> list[str]:
        """Names of the tasks of a role."""
        return [task.name for task in self.tasks if task.role == role]


class FoundSuite(NamedTuple):
    """A suite, and the folder that its file lies in; None: it came with the package."""

    suite: Suite
    folder: Path | None


def packaged_suites() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(
        file.name.removesuffix(SUFFIX)
        for file in files("sonar.evaluate.suites").iterdir()
        if file.name.endswith(SUFFIX)
    )


def find_suite(name_or_file: str) -> FoundSuite:
    """A suite by the name of a packaged one, or from a file.

    Raises:
        FileNotFoundError: neither is there.
        ConfigError: the file is no suite.
    """
    path = Path(name_or_file)
    if path.suffix in (SUFFIX, ".yml") or path.is_file():
        if not path.is_file():
            raise FileNotFoundError(f"no task file at {path}")
        return FoundSuite(read_suite(path), path.resolve().parent)
    if name_or_file not in packaged_suites():
        raise FileNotFoundError(
            f"no suite is called {name_or_file!r}; there are {', '.join(packaged_suites())}, or give a YAML file"
        )
    return FoundSuite(read_suite(Path(str(files("sonar.evaluate.suites") / f"{name_or_file}{SUFFIX}"))), None)


def read_suite(path: Path) -> Suite:
    """Read a task file.

    Raises:
        ConfigError: not YAML; an unknown key, with the nearest that there is; a value that does not fit.
    """
    content = read_yaml(path)
    try:
        probe = from_dict(ProbeConfig, content.get("probe", {}), "probe")
        tasks = content.get("tasks", ())
        if isinstance(tasks, list):
            content["tasks"] = [_with_probe(task, probe, f"tasks[{number}]") for number, task in enumerate(tasks)]
        return from_dict(Suite, content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _with_probe(task: Any, probe: ProbeConfig, where: str) -> Mapping[str, Any]:
    """The task with the suite's probe, changed where the task says so."""
    check_mapping(task, where)
    return {**task, "probe": override(probe, task.get("probe", {}), f"{where}.probe")}


class RoleClips(NamedTuple):
    """The clips of one task."""

    task: str
    role: Role
    clips: Sequence[Clip]


def check_controls(sides: Sequence[RoleClips]) -> None:
    """Refuse a control task that shares a file or a recording group with what target and prior corpora train on.

    Args:
        sides: of every task, before anything is left out.

    Raises:
        ValueError: names both tasks, the clip and what is shared.
    """
    controls = [(side.task, clip) for side in sides if side.role == "control" for clip in side.clips]
    streams = [(side.task, clip) for side in sides if side.role != "control" for clip in side.clips]
    for attribute, meaning in _KEPT_APART:
        trained = {getattr(clip, attribute): task for task, clip in streams if clip.split == "train"}
        for task, clip in controls:
            if (shared := getattr(clip, attribute)) in trained:
                raise ValueError(
                    f"control task {task}: the {meaning} of clip {clip.clip_id} is in the training split of task "
                    f"{trained[shared]}; a control corpus is in no training stream: leave the clip out, or give the "
                    "task another role"
                )


def check_unseen(sides: Sequence[RoleClips], trained: Mapping[str, set[str]]) -> None:
    """Refuse a model that was trained on a held-out clip of a task, or on any clip of a control task.

    Args:
        sides: of every task.
        trained: the values of `sha256` and of `group` of the clips that the model was trained on.

    Raises:
        ValueError: names the task, how many clips and the first of them.
    """
    for side in sides:
        kept_apart = [clip for clip in side.clips if side.role == "control" or clip.split != "train"]
        for attribute, meaning in _KEPT_APART:
            seen = [clip.clip_id for clip in kept_apart if getattr(clip, attribute) in trained[attribute]]
            if seen:
                raise ValueError(
                    f"{side.role} task {side.task}: the model was trained on the {meaning} of {len(seen)} clips that "
                    f"it would be scored on, as {seen[0]}; its score would say nothing. Score a model that did not "
                    "hear them, or leave them out of the task"
                )
