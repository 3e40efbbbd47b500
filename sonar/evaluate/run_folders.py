"""Runs as they lie on disk: a folder's evaluation, configuration and base."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sonar.evaluate.record import TASKS_FILE, Evaluation, read_evaluation, split_folder

SPLIT = "dev"  # the one that runs are searched, compared and audited on
BASE_TRIAL = "anchor-base"  # of a sweep: the base as a trial
SEED_KEYS = ("training.seed", "sampling.seed")


class RunFolder(NamedTuple):
    """One evaluated model.

    Attributes:
        name: as it was given.
        folder: of the trial, or of the evaluation alone.
        evaluation: on the dev split.
        config: of the trial by dotted keys; empty where only an evaluation is there.
        base: name of the base's folder, which holds its content hash; None as above.
    """

    name: str
    folder: Path
    evaluation: Evaluation
    config: dict[str, Any]
    base: str | None


def read_run(given: Path) -> RunFolder:
    """A trial's folder, `SWEEP/trial-003` for `SWEEP/trials/trial-003`, or a folder that holds an evaluation.

    Raises:
        FileNotFoundError: there is no evaluation.
        ValueError: a file of it is not what it should be.
    """
    in_sweep = given.parent / "trials" / given.name
    for folder in (given, in_sweep):
        for where in (split_folder(folder, SPLIT), folder):
            if (where / TASKS_FILE).is_file():
                return RunFolder(str(given), folder, read_evaluation(where), *_origin(folder))
    raise FileNotFoundError(
        f"no evaluation at {given} (no {SPLIT}/{TASKS_FILE}); give the folder of a finished trial, as in "
        "runs/bio/trial-003, or of an evaluation"
    )


def base_beside(*runs: RunFolder) -> Path | None:
    """The base's trial of the sweep that all runs belong to, if they do."""
    parents = {run.folder.resolve().parent for run in runs}
    if len(parents) != 1:
        return None
    found = parents.pop() / BASE_TRIAL
    return found if (split_folder(found, SPLIT) / TASKS_FILE).is_file() else None


def check_same_base(*runs: RunFolder) -> None:
    """Refuse runs that were adapted from different bases: no base gives both a plasticity.

    Raises:
        ValueError: it names them.
    """
    bases = {run.base: run.name for run in runs if run.base is not None}
    if len(bases) > 1:
        named = ", ".join(f"{name} from {base}" for base, name in bases.items())
        raise ValueError(f"the runs were adapted from different bases ({named}); leave --base out to compare scores")


def check_seeds(*runs: RunFolder) -> None:
    """Refuse runs that are not one configuration under different seeds, as far as their configurations are known.

    Raises:
        ValueError: it names two of them.
    """
    for second, first in ((second, first) for number, second in enumerate(runs) for first in runs[:number]):
        names, differing = f"{first.name} and {second.name}", config_difference(first, second).keys()
        is_known = bool(first.config and second.config)
        if first.folder.resolve() == second.folder.resolve() or (is_known and not differing & set(SEED_KEYS)):
            raise ValueError(f"{names} are the same run or have the same seed; give runs of different seeds")
        more = sorted(differing - set(SEED_KEYS))
        if more:
            raise ValueError(f"{names} differ in {', '.join(more)}; give runs of one configuration under several seeds")


def config_difference(first: RunFolder, second: RunFolder) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both values; None for a key that one of them lacks."""
    keys = sorted(first.config.keys() | second.config.keys()) if first.config and second.config else []
    pairs = {key: (first.config.get(key), second.config.get(key)) for key in keys}
    return {key: (one, two) for key, (one, two) in pairs.items() if one != two}


def _origin(folder: Path) -> tuple[dict[str, Any], str | None]:
    # The checkpoint of a trial that is on no front is deleted; the trial's own copy stays.
    paths = (folder / "checkpoint" / "provenance.json", folder / "provenance.json")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}, None
    made = json.loads(path.read_text(encoding="utf-8"))
    return dict(_flat(made.get("trial", {}))), made.get("base")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
