"""What a sweep's journal begins with, and the sweep and options that it gives back: a resume needs no script."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonar.config import ConfigError, from_dict, to_dict
from sonar.experiment import TrialConfig
from sonar.provenance import provenance
from sonar.search.prepare import Sources
from sonar.search.space import Sweep, describe_space, read_space


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where a sweep runs.

    Attributes:
        sources: where the audio is.
        storage: folder that every node sees; the sweep lies in `storage/NAME`, shared work in `storage/cache`.
        ray: "auto" joins a running cluster or starts one; "local" starts one; else an address.
        max_concurrent: trials at a time; None: as many as fit.
        seed: of the sampler.
        resume: continue a sweep that this storage holds.
        mlflow: tracking URI; None: SQLite in the storage.
        keep_all: keep the checkpoints that are on no front too.
    """

    sources: Sources
    storage: Path = Path("runs")
    ray: str = "auto"
    max_concurrent: int | None = None
    seed: int = 0
    resume: bool = False
    mlflow: str | None = None
    keep_all: bool = False


_ELSEWHERE = ("sources", "storage", "seed", "resume")  # options that stand in the journal under another name, or not


def settings_of(sweep: Sweep, options: RunOptions) -> dict[str, Any]:
    """All that `sweep_of` and `options_of` need, and where the sweep came from, as a journal gives it back."""
    fields = {field.name: _plain(getattr(sweep, field.name)) for field in dataclasses.fields(sweep)}
    config, _ = fields.pop("base"), fields.pop("space")
    how = {name: value for name, value in to_dict(options).items() if name not in _ELSEWHERE}
    settings = {
        **fields,
        "config": config,
        "space": describe_space(sweep.space),
        "seed": options.seed,
        "options": {**how, "working_folder": os.getcwd()},
        "provenance": {"sources": options.sources._asdict(), **provenance()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def sweep_of(settings: Mapping[str, Any]) -> Sweep:
    """The sweep that a journal began with.

    Raises:
        ConfigError: naming what the journal does not say.
    """
    hints = typing.get_type_hints(Sweep, localns={"TrialConfig": TrialConfig})
    given = {**settings, "base": settings.get("config")}
    missing = [
        field.name
        for field in dataclasses.fields(Sweep)
        if given.get(field.name) is None and field.default is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"the journal does not say: {', '.join(missing)}; resume by the script: sonar sweep run")
    known = {name: _value(given[name], hint) for name, hint in hints.items() if name in given and name != "space"}
    return Sweep(**known, space=read_space(settings["space"]))


def options_of(settings: Mapping[str, Any], folder: Path) -> RunOptions:
    """The options to resume the sweep in a folder with, as it was last run.

    Raises:
        ConfigError: naming what the journal does not say, or a folder that no longer has the sweep's name.
    """
    missing = [name for name in ("options", "provenance", "seed") if name not in settings]
    if missing:
        raise ConfigError(f"the journal does not say: {', '.join(missing)}; resume by the script: sonar sweep run")
    if folder.name != settings["name"]:
        raise ConfigError(f"{folder} holds the sweep {settings['name']!r}; give the folder that name again")
    known = {field.name for field in dataclasses.fields(RunOptions)}
    how = {name: value for name, value in settings["options"].items() if name in known}
    sources = settings["provenance"]["sources"]
    sources = Sources(**{**sources, "prior": tuple(sources["prior"])})
    return RunOptions(sources=sources, storage=folder.parent, seed=settings["seed"], resume=True, **how)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    return value


def _value(value: Any, hint: Any) -> Any:
    """A field's value from its plain form: a dataclass from its mapping, a tuple from its list."""
    members = typing.get_args(hint) if typing.get_origin(hint) is not dict else ()
    for member in (hint, *members):
        if dataclasses.is_dataclass(member) and isinstance(member, type) and isinstance(value, Mapping):
            return from_dict(member, value)
    return tuple(value) if isinstance(value, list) else value
