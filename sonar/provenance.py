"""What made a result, beside its configuration: commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("sonar-sweep", "torch", "ray", "optuna", "mlflow", "numpy", "scikit-learn", "faiss-cpu")


def provenance() -> dict[str, str | bool | None]:
    """Commit and dirty flag of the source tree (None where sonar was installed from a package), versions, device.

    A package that is not installed has the version None: training by itself needs few of them.
    """
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git says of the source tree, or None where there is no git or no tree."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
