"""Front found per compute, against search without early stopping: `python bench/search.py --out FOLDER`.

On a simulated surface whose front is known (bench/surface.py), with noise and a stability gap. Asks: how many training
steps does a sweep of ours (TrialSource, its anchors among the cost, and FrontHalving) need to reach the hypervolume
that others reach? The others are what Ray Tune with OptunaSearch does: the same Optuna sampler, or its default one, or
random search, every trial run to its end and told with what was measured. Their loop is run on Optuna itself, since
the overhead of Tune is not what is measured. All have the same space, budget, workers and surfaces. A trial that was
measured by luck helps none: hypervolume is that of the true values of the finished trials. Prints Markdown.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import optuna
from surface import DCPT, F1, Surface, Values, saturating, true_hypervolume

from sonar.config import override, to_dict
from sonar.evaluate.curve import CurvePoint, summarise_curve
from sonar.experiment import SMALL_SCALE
from sonar.provenance import provenance
from sonar.search.dominance import hypervolume, non_dominated
from sonar.search.halving import DIRECTIONS, GO_ON, Decision, FrontHalving, HalvingConfig
from sonar.search.journal import Journal
from sonar.search.searcher import SEARCH, TrialSource
from sonar.search.space import SONAR_SPACE, LogUniform, Sweep, Uniform, describe_space

ENDLESS = 10_000  # trials; the budget is of steps
LEAST_PLASTICITY = -1.0  # of the reference point: a percent below the base, as in sonar.search.results


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One comparison.

    Attributes:
        budget: training steps of a sweep, in whole trials.
        every: steps between two points of a curve.
        before: steps of a trial before its model stage, which no rung can save.
        point_cost: steps that an evaluation on the way costs; searches without early stopping have none.
        workers: trials at a time.
        limit: of forgetting, percent: what lies above it counts nothing; None: the whole front counts.
    """

    budget: int = 40
    every: int = 5
    before: int = 0
    point_cost: float = 0.5
    workers: int = 4
    limit: float | None = None

    @property
    def reference(self) -> tuple[float, float]:
        """Of the hypervolume."""
        return LEAST_PLASTICITY, DCPT[1] + 1 if self.limit is None else self.limit


class Asked(NamedTuple):
    """A trial to run: its number, parameters or the name of the anchor, and what belongs to the searcher."""

    number: int
    params: dict[str, float]
    anchor: str | None
    handle: Any


class Search(Protocol):
    """A way to search: gives trials, hears their points and ends."""

    def ask(self) -> Asked:
        """The next trial."""

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """Whether the trial goes on."""

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The trial has run to its end."""

    def stop(self, trial: Asked, reason: str) -> None:
        """The trial was stopped."""


class PlainOptuna:
    """Ray Tune with OptunaSearch and no scheduler: ask, run to the end, tell."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        self._study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def ask(self) -> Asked:
        """As `Search`."""
        trial = self._study.ask()
        return Asked(trial.number, {key: _suggest(trial, key) for key in SONAR_SPACE}, None, trial)

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """Every trial goes on."""
        return GO_ON

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The last point is the result."""
        self._study.tell(trial.handle, list(curve[-1][1]))

    def stop(self, trial: Asked, reason: str) -> None:
        """It never is."""
        raise AssertionError("nothing stops it")


def _suggest(trial: optuna.Trial, key: str) -> float:
    dimension = SONAR_SPACE[key]
    assert isinstance(dimension, Uniform | LogUniform)
    return trial.suggest_float(key, dimension.low, dimension.high, log=isinstance(dimension, LogUniform))


class Ours:
    """TrialSource over a journal, and FrontHalving; None: every trial runs to its end."""

    def __init__(self, journal: Journal, seed: int, setting: Setting, config: HalvingConfig | None) -> None:
        limit = F1 + 10 if setting.limit is None else setting.limit
        base = override(SMALL_SCALE, {"evaluation.every": setting.every})
        sweep = Sweep(
            domain="simulated",
            base=base,
            space=SONAR_SPACE,
            objectives={"plasticity": "max", "forgetting_rate": "min"},
            num_trials=ENDLESS,
            forgetting_limit=limit,
        )
        journal.append(
            "sweep_created",
            config=to_dict(base),
            space=describe_space(sweep.space),
            objectives=dict(sweep.objectives),
            seed=seed,
        )
        self._journal, self._source, self._number = journal, TrialSource(sweep, journal, seed), -1
        self._halving = FrontHalving(config, every=setting.every, forgetting_limit=limit) if config else None

    def ask(self) -> Asked:
        """As `Search`."""
        suggestion = self._source.suggest()
        assert suggestion is not None
        self._journal.append("started", trial_id=suggestion.trial_id)
        self._number += 1
        anchor = None if suggestion.kind == SEARCH else suggestion.trial_id.removeprefix("anchor-")
        return Asked(self._number, suggestion.params, anchor, suggestion.trial_id)

    def on_point(self, trial: Asked, step: int, values: Values) -> Decision:
        """What halving says."""
        if self._halving is None:
            return GO_ON
        return self._halving.on_point(trial.handle, step, *values, may_stop=trial.anchor is None)

    def tell(self, trial: Asked, curve: Sequence[tuple[int, Values]]) -> None:
        """The last point is the result; what the curve says goes with it."""
        plasticity, forgetting = curve[-1][1]
        metrics = {"plasticity": plasticity, "forgetting_rate": forgetting, "forgetting_worst": forgetting}
        if len(curve) > 1:
            points = [CurvePoint("model", step, *values, values.forgetting, {}) for step, values in curve]
            summary = summarise_curve(points)._asdict()
            metrics |= {f"curve/{name}": float(value) for name, value in summary.items()}
        self._source.tell(trial.handle, metrics, "")
        if self._halving:
            self._halving.on_told(metrics)

    def stop(self, trial: Asked, reason: str) -> None:
        """The sampler hears that it was pruned."""
        self._source.prune(trial.handle, reason, {})


class Reached(NamedTuple):
    """Hypervolume after some compute: whole trials spent by all workers, percent squared."""

    compute: float
    hypervolume: float


class Candidate(NamedTuple):
    """A model that a sweep could keep: what was measured of it, and what is true."""

    measured: Values
    true: Values


class Run(NamedTuple):
    """A whole sweep: how its hypervolume rose, and how many trials ended or were stopped.

    Attributes:
        reached: by the finished trials.
        anytime: by these and every point of a curve: the candidates that are kept, which are those on the measured
            front, and count by their true values.
        num_told: searched trials and anchors that ran to their end.
        num_stopped: stopped ones.
    """

    reached: list[Reached]
    anytime: list[Reached]
    num_told: int
    num_stopped: int


def simulate(search: Search, surface: Surface, setting: Setting, *, watched: bool) -> Run:
    """Run a sweep until its budget is spent; workers take the next trial when theirs has ended.

    Args:
        search: what is compared.
        surface: what trials measure.
        setting: budget and costs.
        watched: whether evaluations on the way are made, and paid.
    """
    simulation = _Simulation(search, surface, setting, watched)
    for worker in range(setting.workers):
        simulation.begin(worker / setting.workers)
    while simulation.spent < setting.budget:
        simulation.advance()
    return simulation.run


class _Simulation:
    """A sweep in progress; `spent` counts whole trials."""

    def __init__(self, search: Search, surface: Surface, setting: Setting, watched: bool) -> None:
        self.search, self.surface, self.setting, self.watched = search, surface, setting, watched
        self.spent, self.run = 0.0, Run([Reached(0.0, 0.0)], [Reached(0.0, 0.0)], 0, 0)
        self.finished: list[Values] = []
        self.kept: list[Candidate] = []
        self.curves: dict[int, list[tuple[int, Values]]] = {}
        self.queue: list[tuple[float, int, int, Asked]] = []  # when, trial, step that will then be done

    def begin(self, now: float) -> None:
        """Start a trial on a worker."""
        trial = self.search.ask()
        while trial.anchor == "base":  # it is measured already: nothing is trained
            self.search.tell(trial, [(0, Values(0.0, 0.0))])
            trial = self.search.ask()
        self.curves[trial.number] = []
        self.push(now + self.setting.before, trial, self.setting.every)

    def push(self, now: float, trial: Asked, step: int) -> None:
        heapq.heappush(self.queue, (now + self.setting.every, trial.number, step, trial))

    def advance(self) -> None:
        """Take the next point of any trial."""
        now, _, step, trial = heapq.heappop(self.queue)
        is_end = step >= self.surface.num_steps
        self.pay(is_first=step == self.setting.every, is_end=is_end)
        values = measure(self.surface, trial, step)
        self.curves[trial.number].append((step, values))
        true = Values(*DCPT) if trial.anchor else self.surface.true(trial.params, step)
        if is_end or (self.watched and trial.anchor is None):
            self.keep(Candidate(values, true))
        decision = GO_ON if is_end else self.search.on_point(trial, step, values)
        if is_end:
            self.finish(trial, true)
        elif decision.stop:
            self.search.stop(trial, decision.reason)
            self.run = self.run._replace(num_stopped=self.run.num_stopped + 1)
        if is_end or decision.stop:
            self.begin(now)
        else:
            self.push(now, trial, step + self.setting.every)

    def pay(self, *, is_first: bool, is_end: bool) -> None:
        steps = self.setting.every + (self.setting.before if is_first else 0)
        point = self.setting.point_cost if self.watched and not is_end else 0.0
        self.spent += (steps + point) / (self.setting.before + self.surface.num_steps)

    def keep(self, candidate: Candidate) -> None:
        self.kept = best([*self.kept, candidate])
        self.run.anytime.append(self.reached([kept.true for kept in self.kept]))

    def finish(self, trial: Asked, true: Values) -> None:
        self.search.tell(trial, self.curves.pop(trial.number))
        self.finished.append(true)
        self.run.reached.append(self.reached(self.finished))
        self.run = self.run._replace(num_told=self.run.num_told + 1)

    def reached(self, values: Sequence[Values]) -> Reached:
        return Reached(self.spent, hypervolume(values, DIRECTIONS, self.setting.reference))


def best(candidates: list[Candidate]) -> list[Candidate]:
    """Those on the measured front."""
    on_front = non_dominated([candidate.measured for candidate in candidates], DIRECTIONS)
    return [candidate for candidate, is_on in zip(candidates, on_front, strict=True) if is_on]


def measure(surface: Surface, trial: Asked, step: int) -> Values:
    """A point of a searched trial, or of the anchor DCPT, which forgets and never recovers."""
    if trial.anchor is None:
        return surface.measured(trial.params, step, trial.number)
    done = saturating(step / surface.num_steps, 3.0)
    return Values(DCPT[0] * done, DCPT[1] * done)


NAIVE = HalvingConfig(grace_points=1, smoothing_points=1, least_gap=1e6, margin=1e6)
SAMPLER: dict[str, Any] = {
    "multivariate": True,
    "constant_liar": True,
    "n_startup_trials": 8,
}  # as sonar.search.samplers sets up TPE
OURS, ANYTIME, UNSTOPPED, HASTY = "ours", "ours, anytime front", "ours, no early stopping", "ours, no grace"
SAME, STOCK, RANDOM = "Tune + OptunaSearch, our sampler", "Tune + OptunaSearch, its default", "random search"
WATCHED = (OURS, HASTY)  # pay for points on the way
OTHERS = (UNSTOPPED, SAME, STOCK, RANDOM)

Make = Callable[[Journal, int, Setting], Search]
WAYS: dict[str, Make] = {
    OURS: lambda journal, seed, setting: Ours(journal, seed, setting, HalvingConfig()),
    HASTY: lambda journal, seed, setting: Ours(journal, seed, setting, NAIVE),
    UNSTOPPED: lambda journal, seed, setting: Ours(journal, seed, setting, None),
    SAME: lambda journal, seed, setting: PlainOptuna(optuna.samplers.TPESampler(seed=seed, **SAMPLER)),
    STOCK: lambda journal, seed, setting: PlainOptuna(optuna.samplers.TPESampler(seed=seed)),
    RANDOM: lambda journal, seed, setting: PlainOptuna(optuna.samplers.RandomSampler(seed=seed)),
}
QUESTIONS = {  # what counts, and what a trial costs
    "forgetting at most 5 %": Setting(limit=5.0),
    "the whole front": Setting(),
    "at most 5 %, costs of a trial on two cores": Setting(limit=5.0, every=15, before=60, point_cost=13.0),
}


def run_seed(seed: int, setting: Setting) -> dict[str, Run]:
    """Every way on one surface; the sampler has the seed of the surface."""
    runs = {}
    for name, make in WAYS.items():
        clock = partial(next, itertools.count(0.0))  # the order of events must not hang on the time of day
        with (
            tempfile.TemporaryDirectory() as folder,
            Journal(Path(folder) / "journal.jsonl", clock=clock) as journal,
        ):
            runs[name] = simulate(make(journal, seed, setting), Surface(seed), setting, watched=name in WATCHED)
    runs[ANYTIME] = runs[OURS]._replace(reached=runs[OURS].anytime)
    return runs


def after(run: Run, compute: float) -> float:
    """Hypervolume when so much was spent."""
    return [reached.hypervolume for reached in run.reached if reached.compute <= compute][-1]


def compute_to(run: Run, target: float) -> float:
    """What was spent when the hypervolume was first reached; infinity: it never was."""
    return next((reached.compute for reached in run.reached if reached.hypervolume >= target), math.inf)


def ratios(runs: Sequence[dict[str, Run]], other: str, mine: str) -> list[float]:
    """By seed: what `other` spent on the best it came to, over what `mine` spent on as much; 0: it never came to it.

    Where the other came to nothing, it is all that it spent over what `mine` spent on its first: a lower bound.
    """
    found = []
    for by_way in runs:
        last = by_way[other].reached[-1]
        target = max(last.hypervolume, math.ulp(0.0))
        found.append(min(compute_to(by_way[other], target), last.compute) / compute_to(by_way[mine], target))
    return found


def table(runs: Sequence[dict[str, Run]], setting: Setting) -> Iterator[str]:
    """Markdown: median, quartiles over the surfaces."""
    true = true_hypervolume(setting.reference)
    parts = [setting.budget / 4, setting.budget / 2, setting.budget]
    yield "| search | " + " | ".join(f"HV after {part:g} trials, %" for part in parts) + " | told | stopped |"
    yield "|---" * (len(parts) + 3) + "|"
    for name in (OURS, ANYTIME, HASTY, *OTHERS):
        shares = [[100 * after(by_way[name], part) / true for by_way in runs] for part in parts]
        counts = [statistics.mean(getattr(by_way[name], count) for by_way in runs) for count in Run._fields[2:]]
        cells = [_spread(share, ".0f") for share in shares] + [f"{count:.0f}" for count in counts]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    yield f"| compute of the other / of ours to the same HV | {OURS} | {ANYTIME} |"
    yield "|---|---|---|"
    for other in OTHERS:
        yield f"| {other} | {' | '.join(_ratio(ratios(runs, other, mine)) for mine in (OURS, ANYTIME))} |"


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def _ratio(values: Sequence[float]) -> str:
    missed = sum(value == 0 for value in values)
    return _spread(values, ".1f") + (f", not reached on {missed} of {len(values)}" if missed else "")


def main() -> None:
    """Run all, print the tables, and write them with what made them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for table.md and search.json")
    parser.add_argument("--seeds", type=int, default=10, help="surfaces")
    parser.add_argument("--first", type=int, default=0, help="first of them; HalvingConfig was chosen on 1000 to 1005")
    parser.add_argument("--question", type=int, choices=range(len(QUESTIONS)), help="one of them only")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    chosen = list(QUESTIONS.items())
    lines, results = [], {}
    for question, setting in chosen if options.question is None else [chosen[options.question]]:
        runs = []
        for seed in range(options.first, options.first + options.seeds):
            runs.append(run_seed(seed, setting))
            print(f"{question}: surface {seed}", file=sys.stderr, flush=True)
        lines += [f"### {question}", "", *table(runs, setting), ""]
        results[question] = {
            "setting": asdict(setting),
            "true_hypervolume": true_hypervolume(setting.reference),
            "runs": [{name: run._asdict() for name, run in by_way.items()} for by_way in runs],
        }
    made_by = provenance()
    lines.append(f"{options.seeds} surfaces from {options.first} on; commit {made_by['commit']}, {HalvingConfig()}")
    print("\n".join(lines))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = {"made_by": made_by, "halving": to_dict(HalvingConfig()), "questions": results}
    (options.out / "search.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
