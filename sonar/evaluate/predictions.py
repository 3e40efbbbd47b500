"""What a probe said of every scored clip: the record that scores, intervals and comparisons are computed from.

Shapes: N clips, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.files import write_whole_file


class Predictions(NamedTuple):
    """Of one probe on one split of one task.

    Attributes:
        clip_ids: (N,) str.
        groups: (N,) str, recording groups: what is resampled as one.
        classes: C names, in order of the columns.
        truth: (N, C) bool; one True in every row where the task is multi-class.
        scores: (N, C) float32, larger where the probe holds a class for likelier.
    """

    clip_ids: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    truth: np.ndarray
    scores: np.ndarray


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write an .npz file, whole or not at all."""
    arrays = predictions._asdict() | {"classes": np.asarray(predictions.classes, dtype=str)}
    write_whole_file(path, lambda file: np.savez_compressed(file, **arrays))


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; nothing in the file is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a file, or its parts do not fit together.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no predictions at {path}; evaluate the checkpoint again")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in Predictions._fields}
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} holds no predictions: {error}") from error
    read = Predictions(**arrays | {"classes": tuple(arrays["classes"].tolist())})
    shape = (len(read.clip_ids), len(read.classes))
    if len(read.groups) != shape[0] or read.truth.shape != shape or read.scores.shape != shape:
        raise ValueError(f"{path} holds no predictions: {shape[0]} clips and {shape[1]} classes do not fit its tables")
    return read
