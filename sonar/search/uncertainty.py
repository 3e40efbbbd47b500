"""The points of a front as other recordings might have given them, from what their trials left on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sonar.evaluate.axis_intervals import AxisResamples
from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.evaluate.run_folders import BASE_TRIAL, SPLIT
from sonar.search.candidate_folders import predictions_of
from sonar.search.results import Ranked


def front_draws(folder: Path, members: Sequence[Ranked], config: Resampling | None = None) -> np.ndarray:
    """(R, N, 2) plasticity and forgetting of N candidates in R resamples of the recordings, which all of them share.

    Args:
        folder: of the sweep.
        members: candidates whose predictions are kept, as those of the front are.
        config: resamples and seed.

    Raises:
        FileNotFoundError: predictions are not there; the base's are those of its anchor.
        ValueError: the base scores 0 in a resample, or an encoder was scored on other clips.
    """
    trials = folder / "trials"
    resamples = AxisResamples(read_evaluation(split_folder(trials / BASE_TRIAL, SPLIT)), config)
    return np.stack([resamples.draws(read_evaluation(_predictions(trials, member))) for member in members], axis=1)


def _predictions(trials: Path, member: Ranked) -> Path:
    return predictions_of(trials, member.record, member.candidate.key)
