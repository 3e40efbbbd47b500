"""Common random numbers: what two trials of a sweep draw is the same, so that only their parameters differ."""

from pathlib import Path

import pytest
from test_prepare import config
from test_watch import deterministic, prepared
from tiny import changed, tensors

from sonar.checkpoint import load_checkpoint
from sonar.search.mixture import MIXTURE_FILE
from sonar.search.prepare import Prepared, prepare_shards
from sonar.search.repeats import seeded
from sonar.search.trial import run_trial

__all__ = ["prepared"]
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_same_parameters_give_the_same_trial_and_another_seed_another_one(
    prepared: Prepared, tmp_path: Path
) -> None:
    whole = {"training.clip_seconds": 4.0}  # longer than the clips: what the base says of them is kept
    same, weighted = config(**whole), config(**whole | {"distill.model_weight": 3.0})
    shards, cache = (Path(prepared.new_shards), Path(prepared.prior_shards)), Path(prepared.base).parent
    prepared = prepare_shards(same, *shards, cache.parent, lambda line: None)
    runs = {"first": same, "second": same, "other": seeded(same, 1), "weighted": weighted}
    results, kept = {}, []
    for name, of in runs.items():
        results[name] = run_trial(of, prepared, tmp_path / name, lambda step: None)
        kept.append(len(list(cache.glob("features-*/*/*"))))
    assert 0 < kept[0] == kept[1]  # the second trial read what the first one had computed
    assert deterministic(results["first"]) == deterministic(results["second"])
    ends = {name: load_checkpoint(result.checkpoint) for name, result in results.items()}
    weights = {name: tensors(end.encoder, end.tokenizer, end.predictor) for name, end in ends.items()}
    assert changed(weights["first"], weights["second"]) == []
    assert changed(weights["first"], weights["other"]) and changed(weights["first"], weights["weighted"])
    drawn = {name: (tmp_path / name / MIXTURE_FILE).read_bytes() for name in runs}
    assert drawn["first"] == drawn["weighted"] != drawn["other"]
