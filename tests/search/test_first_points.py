"""What a sweep tries before its sampler is asked: the paper, its own base, and the front of an earlier sweep."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_sweep import metrics

from sonar.config import ConfigError, override, to_dict
from sonar.experiment import TrialConfig
from sonar.search.first_points import first_points
from sonar.search.journal import Journal, SweepState
from sonar.search.searcher import TrialSource
from sonar.search.space import Sweep, choice, describe_space, log_uniform, uniform
from sonar.search.warm import WarmStart, take_warm_start

PAPER = {"sampling.replay_ratio": 0.5, "distill.model_weight": 10.0}
SPACE = {"sampling.replay_ratio": uniform(0.1, 0.7), "distill.model_weight": log_uniform(0.1, 100.0)}
SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(),
    space=SPACE,
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=9,
)
SOURCES: dict[str, Any] = {"domain": "bio", "data": None, "prior": ()}


def changed(**changes: Any) -> Sweep:
    return Sweep(**SWEEP.__dict__ | changes)


def based(**values: Any) -> Sweep:
    return changed(base=override(SWEEP.base, {key.replace("__", "."): value for key, value in values.items()}))


def settings(sweep: Sweep, sources: dict[str, Any] = SOURCES, **more: Any) -> dict[str, Any]:
    """Of a sweep, as `run_sweep` writes them."""
    return {
        "domain": sweep.domain,
        "config": to_dict(sweep.base),
        "space": describe_space(sweep.space),
        "objectives": sweep.objectives,
        "forgetting_limit": sweep.forgetting_limit,
        "anchors": [],
        "seed": 0,
        "provenance": {"sources": sources},
    } | more


def point(ratio: float, weight: float = 1.0) -> dict[str, float]:
    return {"sampling.replay_ratio": ratio, "distill.model_weight": weight}


# Plasticity and forgetting of an earlier sweep's trials; b is dominated by a.
EARLIER = {
    "a": (point(0.2), 9.0, 8.0),
    "b": (point(0.3), 8.0, 9.0),
    "c": (point(0.6), 2.0, 1.0),
    "d": (PAPER, 5.0, 4.0),
}


def write_earlier(folder: Path, sweep: Sweep = SWEEP, **more: Any) -> SweepState:
    with Journal(folder / "journal.jsonl") as journal:
        journal.append("sweep_created", **settings(sweep, **more))
        for trial_id, (params, plasticity, forgetting) in EARLIER.items():
            journal.append("suggested", trial_id=trial_id, kind="search", params=params)
            journal.append("told", trial_id=trial_id, metrics=metrics(plasticity, forgetting), checkpoint="c")
        journal.append("suggested", trial_id="e", kind="search", params=point(0.4))
        journal.append("failed", trial_id="e", reason="nan")
        return journal.state


def test_the_papers_values_come_first_then_the_bases(tmp_path: Path) -> None:
    sweep = based(sampling__replay_ratio=0.3, distill__model_weight=2.0)
    assert first_points(sweep, None).points == [PAPER, point(0.3, 2.0)]


def test_a_base_that_has_the_papers_values_is_tried_once() -> None:
    assert first_points(SWEEP, None) == ([PAPER], [])


def test_a_point_outside_the_space_is_left_out_and_named() -> None:
    narrow = changed(space=SPACE | {"sampling.replay_ratio": uniform(0.1, 0.4)})
    assert first_points(narrow, None) == (
        [],
        [
            "the paper's preset is no point of this space (sampling.replay_ratio is 0.5) and is not tried",
            "the base configuration is no point of this space (sampling.replay_ratio is 0.5) and is not tried",
        ],
    )


def test_a_front_is_tried_after_them_the_most_plastic_first_without_repeats(tmp_path: Path) -> None:
    warm = take_warm_start(SWEEP, SOURCES, write_earlier(tmp_path))
    assert first_points(SWEEP, warm).points == [PAPER, point(0.2), point(0.6)]


def test_of_the_same_question_every_told_result_is_taken(tmp_path: Path) -> None:
    warm = take_warm_start(changed(warm_start="runs/old"), SOURCES, write_earlier(tmp_path))
    assert [told["params"] for told in warm.told] == [params for params, *_ in EARLIER.values()]
    assert warm.told[1]["metrics"] == {"plasticity": 8.0, "forgetting_rate": 9.0}
    note = "warm start from runs/old: 3 points of its front come first; 4 of its 4 results are known to the sampler"
    assert warm.note == note


def test_a_base_that_differs_in_searched_keys_only_asks_the_same_question(tmp_path: Path) -> None:
    sweep = based(distill__model_weight=2.0)
    assert len(take_warm_start(sweep, SOURCES, write_earlier(tmp_path)).told) == 4


@pytest.mark.parametrize(
    ("sweep", "sources", "what"),
    [
        (changed(domain="music"), SOURCES, "domain"),
        (based(training__model_steps=7), SOURCES, "base configuration"),
        (SWEEP, SOURCES | {"data": "elsewhere"}, "audio"),
    ],
)
def test_of_another_question_the_front_is_tried_but_no_result_is_believed(
    sweep: Sweep, sources: dict[str, Any], what: str, tmp_path: Path
) -> None:
    warm = take_warm_start(sweep, sources, write_earlier(tmp_path))
    assert len(warm.front) == 3 and warm.told == []
    assert warm.note.endswith(f"its results are not compared, since it had another {what}")


def test_only_what_lies_in_the_space_is_taken(tmp_path: Path) -> None:
    narrow = changed(space=SPACE | {"sampling.replay_ratio": uniform(0.1, 0.3)})
    warm = take_warm_start(narrow, SOURCES, write_earlier(tmp_path))
    assert [told["params"] for told in warm.told] == [point(0.2), point(0.3)]
    assert warm.front == [point(0.2)]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (changed(objectives={"plasticity": "max"}), "has the objectives .*this sweep has {'plasticity': 'max'}"),
        (
            changed(space=SPACE | {"codebook.anchor": choice("centroid", "closest")}),
            r"searched other keys \(codebook.anchor only on one side\)",
        ),
        (
            changed(space=SPACE | {"distill.model_weight": log_uniform(50.0, 100.0)}),
            "none of the 4 told trials of runs/old lies in this space",
        ),
    ],
)
def test_an_earlier_sweep_that_cannot_help_is_refused(sweep: Sweep, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"warm_start: .*{message}"):
        take_warm_start(Sweep(**sweep.__dict__ | {"warm_start": "runs/old"}), SOURCES, write_earlier(tmp_path))


def warm_source(journal: Journal, warm: WarmStart) -> TrialSource:
    journal.append("sweep_created", **settings(SWEEP, warm=json.loads(json.dumps(warm._asdict()))))
    return TrialSource(changed(anchors=()), journal, seed=3)


def test_the_sampler_knows_every_earlier_result_until_the_point_is_measured_anew(tmp_path: Path) -> None:
    warm = take_warm_start(SWEEP, SOURCES, write_earlier(tmp_path / "old"))
    with Journal(tmp_path / "journal.jsonl") as journal:
        source = warm_source(journal, warm)
        assert [(seen.values, seen.excess) for seen in source.observed()] == [
            ((9.0, 8.0), 3.0),
            ((8.0, 9.0), 4.0),
            ((2.0, 1.0), -4.0),
            ((5.0, 4.0), -1.0),
        ]
        assert source.notes == [warm.note]
        first = source.suggest()
        assert first is not None and first.params == PAPER
        source.tell(first.trial_id, {"plasticity": 6.0, "forgetting_rate": 3.0}, "")
        seen = source.observed()
        assert len(seen) == 4 and seen[-1].values == (6.0, 3.0)


def test_a_warm_sweep_goes_on_the_same_after_the_earlier_one_is_gone(tmp_path: Path) -> None:
    """What was taken is in the journal."""
    warm = take_warm_start(SWEEP, SOURCES, write_earlier(tmp_path / "old"))
    with Journal(tmp_path / "journal.jsonl") as journal:
        source = warm_source(journal, warm)
        given = [source.suggest() for _ in range(4)]
    with Journal(tmp_path / "journal.jsonl") as journal:
        again = TrialSource(changed(anchors=()), journal, seed=3)
        assert [again.suggest() for _ in range(4)] == given
        assert again.suggest() == source_after(tmp_path, warm, 4)


def source_after(tmp_path: Path, warm: WarmStart, num_given: int) -> Any:
    """What a driver that was never replaced suggests next."""
    with Journal(tmp_path / "whole.jsonl") as journal:
        source = warm_source(journal, warm)
        for _ in range(num_given):
            source.suggest()
        return source.suggest()
