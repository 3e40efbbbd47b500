"""How much disk a sweep's checkpoints will take, before it begins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from sonar.checkpoint import MODEL
from sonar.experiment import TrialConfig
from sonar.search.progress import Say

STATE_SIZES = 3.0  # of a saved state, in whole checkpoints: the models and two moments of the optimiser
STATES = 2  # the old state is there until the new one is whole


class ModelBytes(NamedTuple):
    """Bytes of a base, and so of what is adapted from it: of the encoder, and of the whole folder."""

    encoder: int
    checkpoint: int


class DiskForecast(NamedTuple):
    """Bytes that a sweep's trials take at once.

    Attributes:
        least: with a front as small as that of as many unrelated points.
        most: with every scored encoder on the front; None: how many there will be is not known beforehand.
        running: of both, what the trials that run at a time take.
        features: beside them, what is kept of the base's features at most; it gives way to a full disk.
    """

    least: int
    most: int | None
    running: int
    features: int = 0


def model_bytes(base: Path) -> ModelBytes:
    """Of a base's folder."""
    return ModelBytes((base / MODEL).stat().st_size, _folder_bytes(base))


def forecast_disk(
    config: TrialConfig, size: ModelBytes, num_trials: int, num_concurrent: int, *, keep_all: bool = False
) -> DiskForecast:
    """What the checkpoints of a sweep take: those on the front, and the states and latest candidates of what runs.

    Args:
        config: of the trials.
        size: of their base.
        num_trials: anchors among them.
        num_concurrent: at a time.
        keep_all: nothing is deleted.

    Source: n points with unrelated coordinates have a front of 1 + 1/2 + ... + 1/n on average (Barndorff-Nielsen and
    Sobel 1966); a trade-off makes it larger.
    """
    points = _points_per_trial(config)
    ends = 1 if config.training.num_workers == 1 else 2  # several workers leave theirs, and the trial writes its own
    trial = math.ceil((STATES * STATE_SIZES + ends) * size.checkpoint) + (size.encoder if points != 0 else 0)
    running = min(num_concurrent, num_trials) * trial
    most = None if points is None else num_trials * (size.checkpoint + points * size.encoder)
    scored = num_trials * (1 + (points or 0))
    front = math.ceil(sum(1 / rank for rank in range(1, scored + 1))) * size.encoder
    least = most if keep_all and most is not None else front
    features = 0 if config.training.tokenizer_steps == 0 else round(1e9 * config.training.feature_cache_gb)
    return DiskForecast(least + running, None if most is None else most + running, running, features)


def check_disk(forecast: DiskForecast, folder: Path, say: Say) -> None:
    """Say what a sweep will take of the disk, or refuse it where not even the least of it fits.

    Args:
        forecast: of the sweep.
        folder: of the sweep; what its trials hold already is part of the forecast.
        say: hears one line.

    Raises:
        ValueError: there is too little room.
    """
    room = shutil.disk_usage(folder).free + _folder_bytes(folder / "trials")
    needs = f"{show_bytes(forecast.least)} at least"
    needs += "" if forecast.most is None else f", {show_bytes(forecast.most)} at most"
    if room < forecast.least:
        raise ValueError(
            f"checkpoints need {needs}, and {folder} has room for {show_bytes(room)}: free some, lower --concurrent, "
            "or give another --storage"
        )
    tight = forecast.most is None or room < forecast.most + forecast.features
    features = f", kept features up to {show_bytes(forecast.features)} more" if forecast.features else ""
    warning = "; a front of very many points may not fit: watch the disk or raise evaluation.every" if tight else ""
    say(f"disk: checkpoints need {needs}{features}; there is room for {show_bytes(room)}{warning}")


def show_bytes(number: int) -> str:
    """`1.3 GB`: three digits at most."""
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


_UNITS = ("B", "kB", "MB", "GB", "TB")


def _points_per_trial(config: TrialConfig) -> int | None:
    """Points of the curve before the end; None where the number of steps follows from the clips that are drawn."""
    every, steps = config.evaluation.every, config.training.model_steps
    if not every or steps == 0:
        return 0
    return None if steps is None else (steps - 1) // every


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
