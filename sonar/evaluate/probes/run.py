"""One probe on one task: its candidates chosen, fitted, and what it says of the scored clips.

Shapes: N fitted clips, M other clips, K layers, D width, C classes, P candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probes.attentive import Candidate, attentive_scores
from sonar.evaluate.probes.choice import Held, best_thresholds, quality
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.data import Patches, ProbeData, check_splits
from sonar.evaluate.probes.linear import logistic_scores, ridge_scores
from sonar.evaluate.probes.neighbours import neighbour_scores
from sonar.evaluate.scores import is_multi_label

Parts = Sequence[tuple[ProbeData, ProbeData]]  # what is fitted, and what is held out
ALL_LAYERS = -1


def run_probe(train: ProbeData, scored: ProbeData, config: ProbeConfig, dev: ProbeData | None = None) -> Predictions:
    """Choose the probe's candidate, fit it on the training split, and let it speak of the scored split.

    The choice is made on `dev` by a fit on `train`; without one, by cross-validation over the recording groups of
    `train`, as where dev is the scored split. It is by macro-F1 of a multi-class task and by the mean average precision
    of a multi-label one, over the classes that the part at hand can score; equal candidates: the first, equal layers:
    the last. Features are standardised by mean and deviation of what is fitted.

    Of a class with one training clip (or recording), no fold can hold a clip in each part: it counts 0 in the fold that
    holds it out, for every candidate alike, and the final fit sees it.

    Args:
        train: what the probe is fitted on.
        scored: what it is scored on; takes no part in any choice.
        config: of the probe.
        dev: what its candidates are chosen on, when it is not what is scored.

    Returns:
        Predictions of `scored`. In a multi-label task the threshold of every class, that which gives the best F1 on the
        clips of the choice, is subtracted from its scores, so that a class is said where the score is above 0.

    Raises:
        ValueError: see `check_splits`; or a class of a multi-label task for which no threshold can be chosen, as all
            its training clips are one recording.
    """
    check_splits(train, scored, dev)
    multi_label = is_multi_label(scored.targets)
    parts = list(_folds(train, config.num_folds)) if dev is None else [(train, dev)]
    best = _choose(parts, config, multi_label)
    scores = _scores(best.layer, train, scored, config, [best.candidate])[0]
    if multi_label:
        scores = scores - best_thresholds(best.held, train.classes)
    return Predictions(scored.clip_ids, scored.groups, scored.classes, scored.targets, scores.astype(np.float32))


class _Chosen(NamedTuple):
    """The best candidate and the layer that it reads, and what it said of the parts of the choice."""

    layer: int
    candidate: Any
    held: list[Held]


def _choose(parts: Parts, config: ProbeConfig, multi_label: bool) -> _Chosen:
    """The best of all layers and candidates, tried one layer at a time."""
    best, highest = None, -np.inf
    for tried in (one for layer in _layers(parts[0][0], config) for one in _tried(layer, parts, config)):
        reached = float(np.mean([quality(held, multi_label) for held in tried.held]))
        if reached > highest:
            best, highest = tried, reached
    assert best is not None
    return best


def _tried(layer: int, parts: Parts, config: ProbeConfig) -> Iterator[_Chosen]:
    candidates = _candidates(config)
    tables = [_scores(layer, fitted, held, config, candidates) for fitted, held in parts]  # (P, M, C) each
    known = [np.asarray(fitted.targets.any(axis=0)) for fitted, _ in parts]
    for number, candidate in enumerate(candidates):
        truths = [held.targets for _, held in parts]
        said = [Held(*one) for one in zip(truths, (table[number] for table in tables), known, strict=True)]
        yield _Chosen(layer, candidate, said)


def _folds(train: ProbeData, num_folds: int) -> Iterator[tuple[ProbeData, ProbeData]]:
    folds = GroupKFold(min(num_folds, len(np.unique(train.groups))))
    for fitted, held in folds.split(train.clip_ids, groups=train.groups):
        yield train.take(fitted), train.take(held)


def _candidates(config: ProbeConfig) -> Sequence[Any]:
    pairs = product(config.attentive.lrs, config.attentive.weight_decays)
    return {
        "ridge": config.penalties,
        "logistic": config.inverse_penalties,
        "knn": config.neighbours,
        "attentive": [Candidate(*pair) for pair in pairs],
    }[config.probe]


def _layers(data: ProbeData, config: ProbeConfig) -> Sequence[int]:
    """Layers to choose from, the last one first; `ALL_LAYERS` is their mean."""
    if isinstance(data.embeddings, Patches) or data.embeddings.ndim == 2:
        return [0]
    num_layers = data.embeddings.shape[1]
    if config.layer == "mean":
        return [ALL_LAYERS]
    return range(num_layers - 1, -1, -1) if config.layer == "best" else [num_layers - 1]


def _features(data: ProbeData, layer: int) -> np.ndarray:
    """(N, D) of one layer or of the mean of all."""
    if isinstance(data.embeddings, Patches):
        raise ValueError("these embeddings are patches, which only the attentive probe reads; give means of clips")
    if data.embeddings.ndim == 2:
        return data.embeddings
    return data.embeddings.mean(axis=1) if layer == ALL_LAYERS else data.embeddings[:, layer]


def _scores(
    layer: int, fitted: ProbeData, other: ProbeData, config: ProbeConfig, candidates: Sequence[Any]
) -> np.ndarray:
    """(P, M, C): what the candidates, fitted on one part, say of another."""
    if config.probe == "attentive":
        if not (isinstance(fitted.embeddings, Patches) and isinstance(other.embeddings, Patches)):
            raise ValueError("the attentive probe reads patches; give FeatureCache.patches as embeddings")
        patches = (fitted.embeddings, fitted.targets, other.embeddings)
        return attentive_scores(*patches, candidates, config.attentive, config.seed)
    scaler = StandardScaler().fit(_features(fitted, layer))
    inputs, others = (scaler.transform(_features(data, layer)) for data in (fitted, other))
    if config.probe == "knn":
        return neighbour_scores(inputs, fitted.targets, others, candidates, config.temperature)
    probe = ridge_scores if config.probe == "ridge" else logistic_scores
    return probe(inputs, fitted.targets, others, candidates)
