"""Gaussian blobs as the splits of a task: where the right answer is known."""

from typing import Any

import numpy as np

from sonar.evaluate.probes.data import ProbeData

CLASSES = ("frog", "owl", "wren")


def blobs(seed: int, per_class: int = 20, distance: float = 8.0, width: int = 6, **fields: Any) -> ProbeData:
    """One blob per class, `distance` standard deviations from the origin; four clips per recording."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(len(CLASSES)), per_class)
    data = ProbeData(
        embeddings=distance * np.eye(width)[numbers] + rng.standard_normal((len(numbers), width)),
        targets=np.eye(len(CLASSES), dtype=np.bool_)[numbers],
        classes=CLASSES,
        groups=np.array([f"{seed}-{row // 4}" for row in range(len(numbers))]),
        clip_ids=np.array([f"{seed}/{row}" for row in range(len(numbers))]),
    )
    return data._replace(**fields)


def tagged(seed: int, num_clips: int = 120, distance: float = 8.0, width: int = 6) -> ProbeData:
    """A multi-label task: every class moves a clip along an axis of its own; each is there in a third of the clips."""
    rng = np.random.default_rng(seed)
    targets = rng.random((num_clips, len(CLASSES))) < 1 / 3
    noise = rng.standard_normal((num_clips, width))
    return ProbeData(
        embeddings=distance * targets @ np.eye(len(CLASSES), width) + noise,
        targets=targets,
        classes=CLASSES,
        groups=np.array([f"{seed}-{row // 4}" for row in range(num_clips)]),
        clip_ids=np.array([f"{seed}/{row}" for row in range(num_clips)]),
    )
