"""Options that several commands share, and what they become."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.config import env_overrides, override, parse_assignment, read_yaml

if TYPE_CHECKING:
    from sonar.experiment import TrialConfig
    from sonar.search.space import Sweep

SweepFolder = Annotated[Path, typer.Argument(help="Folder of a sweep, as in runs/bio.")]
Data = Annotated[
    str | None, typer.Option(help="Folder or manifest of the new domain. Without it: the embedded corpus.")
]
Domain = Annotated[str, typer.Option(help="Name of the new domain; chooses the embedded corpus without --data.")]
Prior = Annotated[list[str] | None, typer.Option(help="Folder or manifest of a prior corpus; repeat it for several.")]
Base = Annotated[str | None, typer.Option(help="BEATs file or folder of ours. Without it: a small base is built once.")]
TokenizerFile = Annotated[str | None, typer.Option("--tokenizer", help="Tokenizer file that belongs to --base.")]
Preset = Annotated[str, typer.Option(help="A baseline or ablation of docs/method.md; an unknown name lists them.")]
Storage = Annotated[Path, typer.Option(help="Folder for sweeps and shared work; every node must see it.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="A configuration key and value, as in training.seed=1; repeatable."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML with configuration keys, as in `training: {seed: 1}`.")
]
Converge = Annotated[
    str | None, typer.Option(help="TRIALS:PERCENT, as in 8:1: stop once so many added less hypervolume.")
]
Halving = Annotated[bool, typer.Option("--halving", help="Stop poor trials early; needs --set evaluation.every=STEPS.")]
RayAddress = Annotated[
    str,
    typer.Option("--ray", help="auto: join a running cluster or start one; local: start one; or an address."),
]

SMOKE_TRIALS = 4
SMOKE_AUDIT_SEEDS = 2  # as many as have a spread
SMOKE: dict[str, Any] = {
    "base.pretrain.projection_steps": 100,
    "base.pretrain.tokenizer_steps": 50,
    "base.pretrain.model_steps": 150,
    "training.tokenizer_steps": 10,
    "training.model_steps": 20,
    "training.predictor_steps": 5,
    "training.head_steps": 10,
}


def configure(
    config: TrialConfig,
    file: Path | None,
    assignments: list[str] | None,
    base: str | None = None,
    tokenizer: str | None = None,
) -> TrialConfig:
    """Defaults and script < `--config` < environment `SONAR__A__B` < `--base`, `--tokenizer` < `--set`.

    Raises:
        ConfigError: an unknown key or a value that does not fit.
    """
    if file is not None:
        config = override(config, read_yaml(file))
    paths = {"base.checkpoint": base, "base.tokenizer": tokenizer}
    given = {key: path for key, path in paths.items() if path is not None}
    return override(
        config, env_overrides(os.environ) | given | dict(parse_assignment(text) for text in assignments or ())
    )


def shrink(sweep: Sweep) -> Sweep:
    """A sweep that ends in minutes on two cores: few trials of few steps, the audit's among them."""
    return replace(
        sweep,
        base=override(sweep.base, SMOKE),
        num_trials=min(sweep.num_trials, SMOKE_TRIALS),
        audit_seeds=min(sweep.audit_seeds, SMOKE_AUDIT_SEEDS),
    )
