"""SONAR: adapt BEATs audio encoders to a new domain without forgetting the rest, as a Ray-distributed sweep."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "CodebookConfig": "sonar.model.codebook",
    "DistillConfig": "sonar.train.objective",
    "OptimConfig": "sonar.train.optim",
    "PretrainConfig": "sonar.train.pretrain",
    "ProbeConfig": "sonar.evaluate.probes.config",
    "SMALL_SCALE": "sonar.experiment",
    "SONAR_SPACE": "sonar.search.space",
    "SamplingConfig": "sonar.data.sampling",
    "Sweep": "sonar.search.space",
    "TrainingConfig": "sonar.train.settings",
    "TrialConfig": "sonar.experiment",
    "choice": "sonar.search.space",
    "int_uniform": "sonar.search.space",
    "log_uniform": "sonar.search.space",
    "main": "sonar.cli",
    "uniform": "sonar.search.space",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sonar` stays quick."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sonar' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
