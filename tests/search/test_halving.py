"""Early stopping: the order at a rung by its definition, who is never stopped, what a stability gap may not do."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.evaluate.curve import CurveSummary
from sonar.search.dominance import Direction, front_order
from sonar.search.events import Event
from sonar.search.halving import DIRECTIONS, FrontHalving, HalvingConfig, Standing, protected
from sonar.search.scheduler import replay_reports

EVERY, LENGTH, LIMIT = 10, 120, 5.0
coarse = st.integers(-4, 4).map(float)  # ties are common
vectors = st.lists(st.tuples(coarse, coarse, coarse), min_size=1, max_size=12)
ways = st.tuples(*[st.sampled_from(["max", "min"])] * 3)


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    gains = [x - y if way == "max" else y - x for x, y, way in zip(a, b, directions, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def rank(row: int, points: list[tuple[float, ...]], directions: Sequence[Direction]) -> int:
    """By definition: one more than the highest rank of those that dominate it."""
    above = [other for other in range(len(points)) if dominates(points[other], points[row], directions)]
    return 1 + max((rank(other, points, directions) for other in above), default=0)


@given(vectors, ways)
def test_the_order_is_by_front_and_within_a_front_each_point_is_the_farthest_from_those_before(
    points: list[tuple[float, ...]], directions: tuple[Direction, ...]
) -> None:
    order = front_order(points, directions)
    assert sorted(order) == list(range(len(points)))
    ranks = [rank(row, points, directions) for row in range(len(points))]
    assert [ranks[row] for row in order] == sorted(ranks)
    for front in set(ranks):
        rows = [row for row in order if ranks[row] == front]
        spans = [max(points[r][m] for r in rows) - min(points[r][m] for r in rows) or 1.0 for m in range(3)]

        def apart(a: int, b: int, spans: list[float] = spans) -> float:
            return math.dist(*[[points[row][m] / spans[m] for m in range(3)] for row in (a, b)])

        for place in range(1, len(rows)):
            nearest = [min(apart(row, taken) for taken in rows[:place]) for row in rows[place:]]
            assert nearest[0] == pytest.approx(max(nearest))


@given(vectors, ways, st.randoms())
def test_shuffled_rows_come_in_the_same_order_of_values(
    points: list[tuple[float, ...]], directions: tuple[Direction, ...], rng: random.Random
) -> None:
    shuffled = list(points)
    rng.shuffle(shuffled)
    first = [points[row] for row in front_order(points, directions)]
    assert [shuffled[row] for row in front_order(shuffled, directions)] == first


@given(vectors, st.floats(0.1, 100), st.floats(0.1, 100))
def test_other_units_change_no_order(points: list[tuple[float, ...]], first: float, second: float) -> None:
    values = np.asarray(points)[:, :2]
    scaled = values * (2.0 ** round(math.log2(first)), 2.0 ** round(math.log2(second)))
    assert front_order(scaled, DIRECTIONS) == front_order(values, DIRECTIONS)


def halving(**changes: float) -> FrontHalving:
    settings = {"grace_points": 3, "num_rungs": 3, **changes}
    return FrontHalving(HalvingConfig(**settings), every=EVERY, forgetting_limit=LIMIT)  # type: ignore[arg-type]


def run(judge: FrontHalving, trial_id: str, curve: Sequence[tuple[float, float]], first: int = 1) -> int:
    """Report a curve until the trial is stopped; the step it came to."""
    for place, (plasticity, forgetting) in enumerate(curve, start=first):
        if judge.on_point(trial_id, place * EVERY, plasticity, forgetting).stop:
            return place * EVERY
    return len(curve) * EVERY


def flat(plasticity: float, forgetting: float) -> list[tuple[float, float]]:
    return [(plasticity, forgetting)] * (LENGTH // EVERY)


def test_the_worst_are_stopped_at_the_first_rung_and_the_reason_says_by_how_much() -> None:
    judge = halving(eta=3.0, grace_points=3)
    for number in range(3):
        assert run(judge, f"good-{number}", flat(8.0 + number, 1.0 + number)) == LENGTH
    assert run(judge, "bad", flat(1.0, 9.0)) == 3 * EVERY
    assert judge.stopped == {
        "bad": "step 30, rung 1 of 3: plasticity +1.00 %, forgetting 9.00 % is place 4 of 4; the first 2 go on"
    }


def test_few_trials_are_never_compared() -> None:
    judge = halving(eta=3.0)
    assert [run(judge, f"t{number}", flat(9.0 - number, 1.0 + number)) for number in range(3)] == [LENGTH] * 3


def test_a_bad_trial_may_recover_between_rungs_unseen_but_is_judged_at_the_next_one() -> None:
    judge = halving(eta=2.0, grace_points=2, growth=2.0, num_rungs=2, smoothing_points=1)
    for number in range(4):
        run(judge, f"good-{number}", flat(8.0 + number, 2.0 + number))
    curve = [(9.5, 2.5)] * 2 + [(0.0, 9.0)] * 10
    assert run(judge, "fades", curve) == 40
    assert "rung 2 of 2" in judge.stopped["fades"]


@given(st.lists(st.tuples(coarse, st.floats(-4, 14)), min_size=4, max_size=14, unique=True))
def test_no_rung_stops_the_most_plastic_the_least_forgetful_or_the_best_within_the_limit(
    values: list[tuple[float, float]],
) -> None:
    judge = halving(eta=4.0, margin=100.0)
    for number, (plasticity, forgetting) in enumerate(values):
        before = values[: number + 1]
        stopped = run(judge, f"t{number:02d}", flat(plasticity, forgetting)) < LENGTH
        within = [p for p, f in before if f <= LIMIT]
        best = plasticity == max(p for p, _ in before) or forgetting == min(f for _, f in before)
        best |= forgetting <= LIMIT and plasticity == max(within, default=math.inf)
        assert not (stopped and best)


def test_all_that_share_an_extreme_are_protected() -> None:
    peers = [Standing("a", 5.0, 3.0), Standing("b", 5.0, 9.0), Standing("c", 1.0, 3.0), Standing("d", 1.0, 8.0)]
    assert protected(peers, LIMIT) == {"a", "b", "c"}


def spiked(plasticity: float, forgetting: float, spike: float) -> list[tuple[float, float]]:
    """A curve that forgets up to `spike` more at its second point and has recovered by its fifth."""
    heights = [0.7, 1.0, 0.6, 0.2] + [0.0] * (LENGTH // EVERY - 4)
    return [
        (plasticity * (1 - math.exp(-place / 3)), forgetting + spike * height)
        for place, height in enumerate(heights, 1)
    ]


def naive(eta: float = 3.0) -> FrontHalving:
    """No grace beyond one point, and forgetting as measured."""
    return halving(eta=eta, grace_points=1, smoothing_points=1, least_gap=1e6)


def test_a_stability_gap_that_a_naive_rule_kills_for_is_outlasted() -> None:
    """The best trial is the one with the deepest gap; DCPT's curve says how long gaps last."""
    dcpt = CurveSummary(0.0, 30.0, forgetting_max_step=20, stability_gap=12.0, recovery_steps=30)
    others = [spiked(8.0 + number / 10, 3.0 + number / 10, spike=2.0) for number in range(6)]
    best = spiked(11.0, 1.0, spike=8.0)
    ends = {}
    for name, judge in (("naive", naive()), ("ours", halving())):
        judge.on_curve(dcpt)
        for number, curve in enumerate(others):
            run(judge, f"t{number}", curve)
        ends[name] = run(judge, "best", [(p * 0.7 if place < 3 else p, f) for place, (p, f) in enumerate(best)])
    assert ends["naive"] < 50 and ends["ours"] == LENGTH


def test_the_grace_lasts_to_the_median_end_of_the_gaps_and_never_less_than_the_floor() -> None:
    judge = halving(grace_points=3, growth=2.0, num_rungs=2)
    assert (judge.grace_steps, judge.rungs()) == (30, [30, 60])
    judge.on_curve(CurveSummary(0, 9, forgetting_max_step=110, stability_gap=1.0, recovery_steps=10))
    assert judge.grace_steps == 30  # noise
    judge.on_curve(CurveSummary(0, 9, forgetting_max_step=20, stability_gap=5.0, recovery_steps=25))
    assert (judge.grace_steps, judge.rungs()) == (45, [45, 90])
    summary = CurveSummary(0.0, 9.0, forgetting_max_step=10, stability_gap=8.0, recovery_steps=1)
    judge.on_told({f"curve/{name}": float(value) for name, value in summary._asdict().items()})
    assert judge.grace_steps == 30  # the median of 11 and 45 is 28
    judge.on_told({"plasticity": 1.0, "forgetting_rate": 2.0})
    assert judge.grace_steps == 30


def test_one_noisy_point_of_forgetting_at_a_rung_does_not_stop_a_trial() -> None:
    ends = {}
    for name, judge in (("raw", halving(smoothing_points=1)), ("smoothed", halving())):
        for number in range(5):
            run(judge, f"t{number}", flat(5.0 + number, 3.0 + number))
        curve = flat(5.5, 2.0)
        curve[2] = (5.5, 20.0)
        ends[name] = run(judge, "noisy", curve)
    assert ends == {"raw": 30, "smoothed": LENGTH}


@pytest.mark.parametrize("values", [(math.nan, 1.0), (1.0, math.inf), (-math.inf, 1.0)])
def test_a_value_that_is_not_finite_stops_at_once(values: tuple[float, float]) -> None:
    judge = halving()
    decision = judge.on_point("t", EVERY, *values)
    assert decision.stop and decision.reason == f"step 10: plasticity is {values[0]}, forgetting is {values[1]}"


def test_a_limit_broken_by_more_than_the_margin_stops_after_the_grace_only() -> None:
    judge = halving(grace_points=3, margin=4.0)
    assert run(judge, "near", flat(1.0, 9.0)) == LENGTH
    assert run(judge, "far", flat(1.0, 9.5)) == 30
    assert judge.stopped["far"].startswith("step 30: forgetting 9.50 % is above the limit of 5 % by more than 4, after")
    late = [(1.0, 0.0)] * 6 + [(1.0, 20.0)] * 6
    assert run(judge, "late", late) == 80  # two of three points say so


def healthy(step: int, perplexity: float, coverage: float = 0.5) -> dict[str, float]:
    return {
        "tokenizer/codebook/perplexity": perplexity,
        "tokenizer/codebook/coverage": coverage,
        "tokenizer/steps": float(step),
    }


@pytest.mark.parametrize("sick", [(1.4, 0.5), (50.0, 0.001), (math.nan, 0.5)])
def test_a_codebook_that_stays_collapsed_stops_the_trial_within_the_grace(sick: tuple[float, float]) -> None:
    judge = halving(collapse_reports=2)
    stops = [
        judge.on_report("t", healthy(step, *values), may_stop=True).stop
        for step, values in enumerate([(9.0, 0.5), sick, (9.0, 0.5), sick, sick])
    ]
    assert stops == [False] * 4 + [True]
    assert "the codebook has collapsed" in judge.stopped["t"]
    assert judge.on_report("t", {"model/loss": 1.0, "model/steps": 3.0}, may_stop=True).stop  # it stays stopped


def test_anchors_are_compared_to_and_never_stopped() -> None:
    judge = halving()
    for number in range(4):
        run(judge, f"t{number}", flat(5.0 + number, 3.0 + number))
    bad = {"model/plasticity": -3.0, "model/forgetting_rate": 40.0, "tokenizer/codebook/perplexity": 1.0}
    for step in range(EVERY, LENGTH, EVERY):
        assert not judge.on_report("anchor", bad | {"model/steps": float(step)}, may_stop=False).stop
    assert run(judge, "t9", flat(4.0, 8.0)) == 30
    assert "place 5 of 6" in judge.stopped["t9"]  # before the anchor


def test_a_report_between_two_points_is_none_even_where_it_repeats_the_last_values() -> None:
    judge = halving(margin=0.0, grace_points=1, smoothing_points=1)
    stale = {"model/plasticity": 1.0, "model/forgetting_rate": 50.0}
    assert not judge.on_report("t", stale | {"model/steps": 14.0}, may_stop=True).stop
    assert judge.on_report("t", stale | {"model/steps": 20.0}, may_stop=True).stop


def sweep_events(seed: int) -> list[Event]:
    """What a journal holds of four trials at a time, one of which is killed and repeats some points."""
    rng, events = random.Random(seed), []

    def add(event: str, **data: object) -> None:
        events.append(Event(len(events), float(len(events)), event, dict(data)))

    left, running = [f"trial-{number:03d}" for number in range(20)], dict[str, int]()
    values = {trial_id: (rng.uniform(0, 10), rng.uniform(-1, 18)) for trial_id in left}
    while left or running:
        while left and len(running) < 4:
            add("suggested", trial_id=left[0], kind="anchor" if len(left) == 20 else "search", params={})
            running[left.pop(0)] = 0
        trial_id = rng.choice(list(running))
        step = running[trial_id] = max(running[trial_id] + EVERY * rng.choice([1, 1, 1, -1]), EVERY)
        plasticity, forgetting = (mean + random.Random(f"{trial_id}{step}").gauss(0, 1) for mean in values[trial_id])
        metrics = {"model/plasticity": plasticity, "model/forgetting_rate": forgetting, "model/steps": float(step)}
        add("reported", trial_id=trial_id, step=step, metrics=metrics)
        if step >= LENGTH:
            del running[trial_id]
            summary = CurveSummary(0.0, 9.0, 20, 5.0, 15)._asdict()
            told = {f"curve/{name}": float(value) for name, value in summary.items()}
            add("told", trial_id=trial_id, metrics=told, checkpoint="")
    return events


def drive(judge: FrontHalving, events: Sequence[Event]) -> None:
    """What the scheduler tells while the events happen."""
    for event in events:
        if event.event == "reported":
            trial_id = event.data["trial_id"]
            judge.on_report(trial_id, event.data["metrics"], may_stop=trial_id != "trial-000")
        elif event.event == "told":
            judge.on_told(event.data["metrics"])


@pytest.mark.parametrize("seed", range(3))
def test_a_driver_that_replays_a_journal_cut_anywhere_decides_as_one_that_heard_it_all(seed: int) -> None:
    events = sweep_events(seed)
    live = halving()
    drive(live, events)
    assert 3 <= len(live.stopped) <= 17
    for cut in range(0, len(events), 7):
        resumed = halving()
        replay_reports(resumed, events[:cut])
        drive(resumed, events[cut:])
        assert resumed.stopped == live.stopped


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eta": 1.0}, "eta is 1.0; allowed: a finite number above 1"),
        ({"growth": math.inf}, "growth is inf; allowed: a finite number above 1"),
        ({"num_rungs": 0}, "num_rungs is 0; allowed: 1 or more"),
        ({"grace_points": 0}, "grace_points is 0; allowed: 1 or more"),
        ({"margin": math.nan}, "margin is nan; allowed: a finite number, 0 or more"),
    ],
)
def test_settings_that_halve_nothing_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        halving(**changes)


def test_halving_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"evaluation.every is 0, so there are none; set evaluation.every to some"):
        FrontHalving(HalvingConfig(), every=0, forgetting_limit=LIMIT)
