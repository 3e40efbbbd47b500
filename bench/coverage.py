"""How often intervals cover the truth, in simulation: of scores and of differences of two models, by both rules.

    PYTHONPATH=tests python bench/coverage.py

A probe set is classes of recordings of two clips each, whose errors are alike within a recording (tests/evaluated.py);
the truth is the score on a set of 5000 recordings a class. Prints a Markdown table: percentile / BCa, percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple, get_args

import numpy as np
import typer
from evaluated import make_predictions, noisier  # type: ignore[import-not-found]  # of tests/

from sonar.cli.app import guarded
from sonar.evaluate.bootstrap import WeightedScorer, bca_interval, draw_weights, percentile_interval
from sonar.evaluate.scores import Metric

LEVEL = 0.95
ENDLESS = 5000  # recordings a class


class Shape(NamedTuple):
    """Of a probe set."""

    recordings: int
    classes: int


SHAPES = (Shape(3, 10), Shape(5, 5), Shape(20, 5))


def main(
    sets: Annotated[int, typer.Option(help="Simulated probe sets.")] = 250,
    resamples: Annotated[int, typer.Option(help="Of the recordings of each.")] = 600,
) -> None:
    """Print the share of probe sets whose interval covers the truth."""
    typer.echo(f"| 95 % | {' | '.join(f'{shape.recordings} recordings x {shape.classes}' for shape in SHAPES)} |")
    typer.echo("|---" * (len(SHAPES) + 1) + "|")
    for name, scores, within in (
        *((metric, _score, False) for metric in get_args(Metric)),
        *((metric, _difference, False) for metric in get_args(Metric)),
        ("macro_f1", _score, True),
    ):
        label = f"{'' if scores is _score else 'difference of '}{name}{', drawn within classes' if within else ''}"
        cells = [_covered(shape, (name, scores, within), sets, resamples) for shape in SHAPES]
        typer.echo(f"| {label} | {' | '.join(cells)} |")


Scores = Callable[[Shape, int, Metric], Callable[[np.ndarray], np.ndarray]]


def _score(shape: Shape, seed: int, metric: Metric) -> Callable[[np.ndarray], np.ndarray]:
    made = make_predictions(seed, num_classes=shape.classes, recordings=shape.recordings)
    scorer = WeightedScorer(made, metric)
    return lambda weights: scorer(weights).score


def _difference(shape: Shape, seed: int, metric: Metric) -> Callable[[np.ndarray], np.ndarray]:
    made = make_predictions(seed, num_classes=shape.classes, recordings=shape.recordings)
    better = noisier(made, seed + 10_000, noise=0.7, help_truth=0.5)
    one, two = (WeightedScorer(side, metric) for side in (made, better))
    return lambda weights: two(weights).score - one(weights).score


def _covered(shape: Shape, of: tuple[Metric, Scores, bool], sets: int, resamples: int) -> str:
    metric, scores, within = of
    num_groups = shape.recordings * shape.classes
    endless = np.ones((1, ENDLESS * shape.classes))
    truth = scores(shape._replace(recordings=ENDLESS), sets, metric)(endless)[0]
    covered = np.zeros(2)
    for seed in range(sets):
        score, rng = scores(shape, seed, metric), np.random.default_rng(seed)
        sizes = [shape.recordings] * shape.classes if within else [num_groups]
        drawn = score(np.concatenate([draw_weights(size, resamples, rng) for size in sizes], axis=1))
        point, left_out = score(np.ones((1, num_groups)))[0], score(1.0 - np.eye(num_groups))
        rules = percentile_interval(drawn, LEVEL), bca_interval(drawn, point, left_out, LEVEL)
        covered += [not interval.excludes(truth) for interval in rules]
    return " / ".join(f"{100 * share:.0f}" for share in covered / sets)


if __name__ == "__main__":
    guarded(lambda: typer.run(main))
