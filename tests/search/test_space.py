"""A sweep is checked against its config when it is written, not when its first trial fails."""

import dataclasses
import json
import math
import pickle
from typing import Any, Literal

import pytest

from sonar.config import ConfigError
from sonar.experiment import TrialConfig
from sonar.search.space import (
    Dimension,
    Sweep,
    apply,
    choice,
    contains,
    describe_space,
    int_uniform,
    log_uniform,
    uniform,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    replay_ratio: float = 0.3
    num_clusters: int = 8
    retrieval: Literal["knn", "random"] = "knn"

    def __post_init__(self) -> None:
        if not 0 <= self.replay_ratio < 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; allowed: 0 to below 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    sampling: Sampling = Sampling()
    weight: float = 1.0


SPACE: dict[str, Dimension] = {
    "sampling.replay_ratio": uniform(0.1, 0.7),
    "sampling.num_clusters": int_uniform(2, 9),
    "sampling.retrieval": choice("knn", "random"),
    "weight": log_uniform(1e-3, 10),
}
PARAMS = {
    "sampling.replay_ratio": 0.5,
    "sampling.num_clusters": 3,
    "sampling.retrieval": "random",
    "weight": 1,
}


def sweep(**changes: Any) -> Sweep:
    values: dict[str, Any] = {
        "domain": "bio",
        "base": Config(),
        "space": SPACE,
        "objectives": {"plasticity": "max", "forgetting_rate": "min"},
        "num_trials": 4,
    }
    return Sweep(**{**values, **changes})


def test_a_sweep_is_named_after_its_domain_unless_it_has_a_name() -> None:
    assert sweep().name == "bio"
    assert sweep(name="bio-2").name == "bio-2"
    assert sweep().forgetting_limit == 5.0


def test_applying_params_changes_exactly_these_keys() -> None:
    config: Any = apply(sweep(), PARAMS)
    assert config == Config(sampling=Sampling(replay_ratio=0.5, num_clusters=3, retrieval="random"), weight=1.0)
    assert type(config.weight) is float


def test_a_sweep_travels_between_processes_and_into_the_journal() -> None:
    assert pickle.loads(pickle.dumps(sweep())) == sweep()
    plain = json.loads(json.dumps(describe_space(SPACE), allow_nan=False))
    assert plain["weight"] == {"type": "LogUniform", "low": 1e-3, "high": 10}
    assert plain["sampling.retrieval"] == {"type": "Choice", "values": ["knn", "random"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"space": {"sampling.replay_ration": uniform(0, 0.5)}},
            "nearest valid key: 'sampling.replay_ratio'",
        ),
        ({"space": {"replay_ratio": uniform(0, 0.5)}}, "nearest valid key: 'sampling.replay_ratio'"),
        ({"space": {"sampling": choice("a", "b")}}, "unknown key 'sampling'"),
        ({"space": {"sampling.replay_ratio": uniform(0, 1)}}, "cannot be 1: sampling: replay_ratio is 1.0"),
        ({"space": {"sampling.num_clusters": uniform(1, 2.5)}}, "cannot be 2.5"),
        ({"space": {"sampling.retrieval": choice("knn", "nearest")}}, "cannot be 'nearest'.*allowed: 'knn'"),
        ({"space": {}}, "space: it is empty"),
        ({"objectives": {}}, "objectives: got {}"),
        ({"objectives": {"plasticity": "maximize"}}, "objectives: got .*allowed: 'max' or 'min'"),
        ({"num_trials": 0}, "num_trials: got 0"),
        ({"num_trials": True}, "num_trials: got True"),
        ({"audit_seeds": 1}, "audit_seeds: got 1; allowed: 0 for no audit, or 2 or more"),
        ({"audit_seeds": -2}, "audit_seeds: got -2"),
        ({"base": TrialConfig(), "space": {"training.seed": int_uniform(0, 9)}}, "'training.seed' is no parameter"),
        ({"forgetting_limit": math.inf}, "forgetting_limit: got inf"),
        ({"domain": "../etc"}, r"domain: got '\.\./etc'"),
        ({"name": "a b"}, "name: got 'a b'"),
    ],
)
def test_a_sweep_that_could_not_run_is_refused_when_written(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(**changes)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({**PARAMS, "wieght": 1}, "unknown parameter 'wieght'; nearest valid key: 'weight'"),
        ({"weight": 1}, "parameters not given: sampling.replay_ratio"),
        ({**PARAMS, "weight": 11}, "weight: got 11; allowed: LogUniform"),
        ({**PARAMS, "weight": math.nan}, "weight: got nan"),
        ({**PARAMS, "sampling.num_clusters": 3.0}, "num_clusters: got 3.0"),
        ({**PARAMS, "sampling.retrieval": "none"}, "retrieval: got 'none'"),
    ],
)
def test_params_must_be_the_whole_point_and_inside_the_space(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(sweep(), params)


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (uniform, (1, 1), "lower one first"),
        (uniform, (0, math.inf), "finite"),
        (uniform, (False, 2), r"uniform\(False, 2\)"),
        (log_uniform, (0, 1), "above zero"),
        (int_uniform, (0.5, 2), "whole numbers"),
        (choice, ("a",), "two or more different"),
        (choice, ("a", "a"), "two or more different"),
        (choice, ("a", ("b",)), "allowed: booleans"),
    ],
)
def test_a_dimension_that_cannot_be_searched_is_refused(make: Any, values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(*values)


def test_dimensions_include_both_bounds_and_know_their_types() -> None:
    assert contains(uniform(0, 1), 0) and contains(uniform(0, 1), 1.0)
    assert not contains(uniform(0, 1), True)
    assert not contains(choice(1, 2), True)
    assert contains(choice(True, None), None)
