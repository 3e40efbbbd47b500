"""Every sampler by the same contract: seeded, steered by results and by the constraint, no point twice."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.search.samplers import NUM_RANDOM, Observed, Params, Proposer, point_key
from sonar.search.space import Dimension, SamplerName, choice, int_uniform, log_uniform, num_points, uniform

SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
GUIDED = [name for name in SAMPLERS if name != "random"]
SLOW_GP = [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS]
LIMIT = 5.0
SPACE: dict[str, Dimension] = {
    "ratio": uniform(0.0, 1.0),
    "weight": log_uniform(0.1, 100.0),
    "anchor": choice("near", "far"),
    "clusters": int_uniform(2, 9),
}

Judge = Callable[[Params], tuple[float, float]]


def trade_off(params: Params) -> tuple[float, float]:
    """More of `ratio` gains plasticity and forgets more; a fifth of the space keeps within the limit."""
    return 20 * params["ratio"], 25 * params["ratio"]


def search(
    sampler: SamplerName,
    judge: Judge,
    num_trials: int,
    *,
    space: dict[str, Dimension] = SPACE,
    seed: int = 0,
    constrained: bool = True,
) -> list[Params]:
    """The points of a search without a journal, one trial after the other."""
    proposer = Proposer(sampler, space, ["max", "min"], seed)
    observed: list[Observed] = []
    for number in range(num_trials):
        params = proposer.propose(observed, {point_key(seen.params) for seen in observed}, number)
        if params is None:
            break
        plasticity, forgetting = judge(params)
        excess = forgetting - LIMIT if constrained else None
        observed.append(Observed(params, "told", (plasticity, forgetting), excess))
    return [seen.params for seen in observed]


@pytest.mark.parametrize("sampler", SLOW_GP)
def test_seed_and_results_decide_every_point(sampler: SamplerName) -> None:
    first = search(sampler, trade_off, NUM_RANDOM + 3)
    assert search(sampler, trade_off, NUM_RANDOM + 3) == first
    assert search(sampler, trade_off, 2, seed=1) != first[:2]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_results_steer_every_sampler_but_the_random_one(sampler: SamplerName) -> None:
    def reverse(params: Params) -> tuple[float, float]:
        return 20 * (1 - params["ratio"]), 25 * (1 - params["ratio"])

    num_trials = NUM_RANDOM + 4
    one, other = (search(sampler, judge, num_trials) for judge in (trade_off, reverse))
    assert one[:NUM_RANDOM] == other[:NUM_RANDOM]
    assert (one == other) == (sampler == "random")


def late_share(points: Sequence[Params], is_wanted: Callable[[Params], bool]) -> float:
    late = points[len(points) // 2 :]
    return sum(map(is_wanted, late)) / len(late)


@pytest.mark.parametrize(
    ("sampler", "num_trials", "num_seeds"),
    [
        ("tpe", 28, 3),
        ("nsga2", 40, 3),
        pytest.param("nsga3", 48, 4, marks=pytest.mark.slow),
        pytest.param("gp", 24, 2, marks=pytest.mark.slow),
    ],
)
def test_the_constraint_draws_late_points_into_the_feasible_region(
    sampler: SamplerName, num_trials: int, num_seeds: int
) -> None:
    def share(seed: int, constrained: bool) -> float:
        points = search(sampler, trade_off, num_trials, seed=seed, constrained=constrained)
        return late_share(points, lambda params: trade_off(params)[1] <= LIMIT)

    gains = [share(seed, True) - share(seed, False) for seed in range(num_seeds)]
    assert sum(gains) / num_seeds > 0.1
    if sampler == "tpe":  # the default: not on average alone
        assert min(gains) > 0.2


@pytest.mark.parametrize("sampler", GUIDED)
def test_a_sampler_goes_on_while_every_trial_breaks_the_constraint(sampler: SamplerName) -> None:
    points = search(sampler, lambda p: (p["ratio"], 50 + 25 * p["ratio"]), NUM_RANDOM + 3)
    assert len(points) == NUM_RANDOM + 3


CHOICES: dict[str, Dimension] = {"a": choice(1, 2, 3), "b": choice(True, None), "c": int_uniform(0, 2)}


@pytest.mark.parametrize("sampler", SLOW_GP)
def test_a_finite_space_is_searched_to_its_end_without_a_point_twice(sampler: SamplerName) -> None:
    points = search(sampler, lambda p: (p["a"] + p["c"], 3.0 * p["c"]), 99, space=CHOICES)
    every = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product((1, 2, 3), (True, None), range(3))]
    assert num_points(CHOICES) == len(every)
    assert sorted(map(point_key, points)) == sorted(map(point_key, every))


@settings(max_examples=8)
@given(
    sizes=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    sampler=st.sampled_from(["tpe", "nsga2", "nsga3", "random"]),
    seed=st.integers(0, 2**32),
)
def test_any_finite_space_ends_after_as_many_points_as_it_has(
    sizes: list[int], sampler: SamplerName, seed: int
) -> None:
    space: dict[str, Dimension] = {f"key{place}": int_uniform(1, size) for place, size in enumerate(sizes)}
    points = search(sampler, lambda p: (p["key0"], -p["key0"]), 99, space=space, seed=seed)
    assert len(points) == len({point_key(point) for point in points}) == math.prod(sizes)


@pytest.mark.parametrize("sampler", GUIDED)
def test_what_runs_is_avoided_or_ignored_but_never_given_again(sampler: SamplerName) -> None:
    proposer = Proposer(sampler, SPACE, ["max", "min"], 0)
    told = [
        Observed(params, "told", trade_off(params), trade_off(params)[1] - LIMIT)
        for params in search("random", trade_off, 10)
    ]
    running: list[Observed] = []
    for number in range(4):
        everything = told + running
        params = proposer.propose(everything, {point_key(seen.params) for seen in everything}, 10 + number)
        assert params is not None
        running.append(Observed(params, "running"))
    assert len({point_key(seen.params) for seen in told + running}) == 14


def next_after(sampler: SamplerName, extra: list[Observed], number: int = 12) -> Any:
    told = [Observed(params, "told", trade_off(params), 0.0) for params in search("random", trade_off, 12)]
    return Proposer(sampler, SPACE, ["max", "min"], 0).propose(told + extra, set(), number)


PRUNED = [
    Observed({"ratio": 0.5, "weight": 1.0, "anchor": "near", "clusters": number}, "pruned") for number in range(2, 8)
]


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3", "gp", "random"])
def test_the_other_samplers_pass_over_pruned_trials(sampler: SamplerName) -> None:
    assert next_after(sampler, PRUNED) == next_after(sampler, [])


def test_of_many_pruned_trials_tpe_hears_of_the_last_ones_as_many_as_were_told() -> None:
    many = [Observed(seen.params | {"ratio": 0.1 * place}, "pruned") for place in range(8) for seen in PRUNED[:5]]
    all_of_them, twelve, eleven = ([next_after("tpe", p, n) for n in range(8)] for p in (many, many[-12:], many[-11:]))
    assert all_of_them == twelve != eleven


@pytest.mark.parametrize("excess", [-1.0, 3.0])
def test_tpe_stays_away_from_where_trials_are_pruned(excess: float) -> None:
    """Half of the space looks as good as the other, but its trials never end; also where no trial is feasible."""

    def share_beyond(prunes: bool) -> float:
        shares = []
        for seed in range(3):
            proposer, observed = Proposer("tpe", SPACE, ["max", "min"], seed), list[Observed]()
            for number in range(28):
                params = proposer.propose(observed, set(), number)
                assert params is not None
                stopped = prunes and params["ratio"] > 0.5
                told = Observed(params, "told", (float(params["clusters"]), 0.0), excess)
                observed.append(Observed(params, "pruned") if stopped else told)
            shares.append(late_share([seen.params for seen in observed], lambda p: p["ratio"] > 0.5))
        return sum(shares) / len(shares)

    assert share_beyond(True) < share_beyond(False) - 0.1
