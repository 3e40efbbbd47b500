"""Front found per compute on real audio: `python bench/real_search.py OUT --data DIR --prior DIR --base FOLDER`.

As bench/search.py, but a trial is a real one, seconds long: a sweep of ours as it is by default (anchors, first points,
the limit told to the sampler), with and without the anytime front, against Ray Tune with OptunaSearch as it comes
(Optuna's TPE, ask, run to the end, tell) and random search. None stops a trial early. Compute is processor seconds of
one thread, evaluations in it: those on the way and between base and end are paid where the anytime front is used. A
seed is that of a sampler and of all draws of its trials. What a sweep gains is the hypervolume that its measured front
adds to that of the base, which everybody has. Dev scores are noisy, so the finished front is measured once more: the
same candidates under another training seed.

A trial that was run is never run again: its result is a line of OUT/trials.jsonl, by its configuration, and all ways
that ask for that configuration share it and its cost. A bench that was killed goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import optuna
import torch
import typer
from harness import describe, machine, spread, table
from real_trials import Place, Trials
from search import after, ratios
from simulation import LEAST_PLASTICITY, Asked, Reached, Run, Search
from surface import Values
from ways import ENDLESS, Ours, PlainOptuna

from sonar.cli.app import guarded
from sonar.config import override
from sonar.experiment import SMALL_SCALE, TrialConfig, apply_preset
from sonar.files import write_whole_text
from sonar.search.candidates import DIRECTIONS
from sonar.search.dominance import hypervolume, non_dominated
from sonar.search.journal import Journal
from sonar.search.prepare import Sources, prepare
from sonar.search.repeats import seeded
from sonar.search.run import ray_session
from sonar.search.samplers import make_sampler
from sonar.search.space import SONAR_SPACE, Sweep, apply

SHORT = {
    "training.batch_size": 8,
    "training.tokenizer_steps": 10,
    "training.predictor_steps": 5,
    "training.model_steps": 40,
    "training.head_steps": 0,
    "training.churn_every": 0,
    "optim.lr": 1e-3,
}
LIMIT = Sweep.forgetting_limit
ANYTIME = {"evaluation.every": 20, "evaluation.alphas": (0.5,)}
REPEAT = 1000  # added to a seed for the second run of a front
AXES = tuple(DIRECTIONS.values())
BASE = Values(0.0, 0.0)
OURS, OURS_ANYTIME = "ours", "ours, with the anytime front"
STOCK, RANDOM = "Tune + OptunaSearch, its default", "random search"


class Candidate(NamedTuple):
    """An encoder that a way has scored: by which configuration, where in it, and both axes."""

    config: TrialConfig
    place: Place
    values: Values


class Way:
    """A search in progress: what it spent after each trial and all that it has scored by then.

    Attributes:
        name: of the way.
        history: processor seconds and candidates after every trial.
    """

    def __init__(self, name: str, search: Search, sweep: Sweep, trials: Trials) -> None:
        self.name, self.history = name, [(0.0, list[Candidate]())]
        self._search, self._sweep, self._trials = search, sweep, trials

    @property
    def spent(self) -> float:
        """Processor seconds."""
        return self.history[-1][0]

    def advance(self) -> None:
        """Run its next trial; the base is measured already."""
        asked = self._search.ask()
        while asked.anchor == "base":
            self._search.tell(asked, [(0, BASE)])
            asked = self._search.ask()
        config = self._config(asked)
        found = self._trials.run(config)
        self._search.tell(asked, [(found.end.step, found.values[found.end])])
        new = [Candidate(config, place, values) for place, values in found.values.items()]
        self.history.append((self.spent + found.seconds, self.history[-1][1] + new))

    def _config(self, asked: Asked) -> TrialConfig:
        return apply_preset(self._sweep.base, asked.anchor) if asked.anchor else apply(self._sweep, asked.params)

    def without_anytime(self, name: str) -> Way:
        """The same trials, had they been scored at their ends only."""
        way = Way(name, self._search, self._sweep, self._trials)
        for spent, candidates in self.history[1:]:
            ends = [candidate for candidate in candidates if candidate.place == Place(_steps(candidate), 1.0)]
            saved = (len(candidates) - len(ends)) * self._trials.evaluation_seconds
            way.history.append((spent - saved, ends))
        return way


def _steps(candidate: Candidate) -> int:
    return candidate.config.training.model_steps or 0


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that nothing scored beats, the base among what they are held against."""
    on_front = non_dominated([BASE, *(candidate.values for candidate in candidates)], AXES)
    return [candidate for candidate, is_on in zip(candidates, on_front[1:], strict=True) if is_on]


def gain(values: Sequence[Values], reference: tuple[float, float]) -> float:
    """Hypervolume beyond that of the base, percent squared."""
    return hypervolume([BASE, *values], AXES, reference) - hypervolume([BASE], AXES, reference)


class Seed(NamedTuple):
    """All ways under one seed: what they reached by question, and their fronts measured again."""

    reached: dict[str, dict[str, Run]]
    repeated: dict[str, dict[str, float]]


def search_seed(seed: int, base: TrialConfig, trials: Trials, budget: float) -> dict[str, Way]:
    """Every way until its budget is spent, trial by trial in turns, so that a busy machine slows all of them."""
    plain = Sweep(domain="real", base=seeded(base, seed), space=SONAR_SPACE, objectives=DIRECTIONS, num_trials=ENDLESS)
    ours = replace(plain, base=override(plain.base, ANYTIME))
    clock = partial(next, itertools.count(0.0))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl", clock=clock) as journal:
        ways = [
            Way(OURS_ANYTIME, Ours(journal, ours, seed), ours, trials),
            Way(STOCK, PlainOptuna(optuna.samplers.TPESampler(seed=seed)), plain, trials),
            Way(RANDOM, PlainOptuna(make_sampler("random", seed)), plain, trials),
        ]
        while open_ways := [way for way in ways if way.without_anytime(OURS).spent < budget]:
            for way in open_ways:
                way.advance()
    found = {way.name: way for way in ways}
    return {OURS: found[OURS_ANYTIME].without_anytime(OURS), **found}


def judge(seed: int, ways: dict[str, Way], trials: Trials, budget: float, *, repeat: bool) -> Seed:
    """Hypervolume over compute, up to the budget, and that of the finished fronts under another seed."""
    reached: dict[str, dict[str, Run]] = {}
    repeated: dict[str, dict[str, float]] = {}
    dcpt = next(c.values for c in ways[OURS].history[1][1])  # the first trial of ours
    least = min(0.0, dcpt.plasticity) + LEAST_PLASTICITY
    questions = {f"forgetting at most {LIMIT:g} %": LIMIT, "the whole front": max(0.0, dcpt.forgetting) + 1}
    within = {name: [step for step in way.history if step[0] <= budget] for name, way in ways.items()}
    again = {name: _again(steps[-1][1], seed, trials) for name, steps in within.items()} if repeat else {}
    for question, most in questions.items():
        reference = (least, most)
        reached[question] = {
            name: Run([Reached(spent, gain([c.values for c in all_], reference)) for spent, all_ in steps],
                      [], len(steps) - 1, 0)
            for name, steps in within.items()
        }  # fmt: skip
        repeated[question] = {name: gain(values, reference) for name, values in again.items()}
    return Seed(reached, repeated)


def _again(candidates: Sequence[Candidate], seed: int, trials: Trials) -> list[Values]:
    """The front of them under another seed."""
    front = ((trials.run(seeded(c.config, seed + REPEAT)), c.place) for c in front_of(candidates))
    return [found.values[place] for found, place in front]


def tables(seeds: Sequence[Seed], budget: float) -> list[str]:
    """Markdown of both questions: median, lowest to highest over the seeds."""
    lines: list[str] = []
    parts = [budget / 4, budget / 2, budget]
    for question in seeds[0].reached:
        runs = [seed.reached[question] for seed in seeds]
        again = [number for number, seed in enumerate(seeds) if seed.repeated[question]]
        header = ["search", "trials", *(f"HV gained after {part:.0f} s" for part in parts)]
        header.append(f"its front under another seed, % of that ({len(again)} seeds)")
        rows = []
        for name in runs[0]:
            gained = [spread([after(by_way[name], part) for by_way in runs], ".0f") for part in parts]
            held = [
                100 * seeds[n].repeated[question][name] / gained_by
                for n in again
                if (gained_by := after(runs[n][name], budget))
            ]
            trials = spread([by_way[name].num_told for by_way in runs], ".0f")
            rows.append([name, trials, *gained, spread(held, ".0f") if held else "-"])
        lines += [f"### {question}", "", *table(header, rows)]
        mine = (OURS, OURS_ANYTIME)
        found = [[other, *(_ratio(ratios(runs, other, way)) for way in mine)] for other in (STOCK, RANDOM)]
        lines += table(["compute of the other / of ours to the same HV", *mine], found)
    return lines


def _ratio(values: Sequence[float]) -> str:
    missed = sum(value == 0 for value in values)
    return spread(values, ".1f") + (f", not reached under {missed} of {len(values)} seeds" if missed else "")


def bench(
    out: Annotated[Path, typer.Argument(help="Folder for trials, tables and what is prepared.")],
    data: Annotated[str, typer.Option(help="Corpus of the new domain.")],
    prior: Annotated[list[str], typer.Option(help="Prior corpora.")],
    base: Annotated[str, typer.Option(help="Folder of the base.")],
    seeds: Annotated[int, typer.Option(min=2, help="Of every way.")] = 5,
    budget: Annotated[float, typer.Option(min=1, help="Processor seconds of a sweep.")] = 100.0,
    repeat: Annotated[int, typer.Option(min=0, help="Seeds whose finished fronts are measured once more.")] = 0,
) -> None:
    """Run every way under every seed, print the tables, and write them with what made them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    torch.set_num_threads(1)
    made_by = machine()
    config = override(SMALL_SCALE, SHORT | {"base.checkpoint": base})
    out.mkdir(parents=True, exist_ok=True)
    with ray_session("local"):
        prepared = prepare(config, Sources("real", data, tuple(prior)), out, partial(typer.echo, err=True))
    trials = Trials(out, prepared)
    found = []
    for seed in range(seeds):
        ways = search_seed(seed, config, trials, budget)
        found.append(judge(seed, ways, trials, budget, repeat=seed < repeat))
        typer.echo(f"seed {seed}: {[len(way.history) - 1 for way in ways.values()]} trials", err=True)
    lines = [*tables(found, budget), f"One evaluation: {trials.evaluation_seconds:.2f} s. {describe(made_by)}"]
    typer.echo("\n".join(lines))
    write_whole_text(out / "table.md", "\n".join(lines) + "\n")
    record = {"made_by": made_by, "budget": budget, "seeds": [seed._asdict() for seed in found]}
    write_whole_text(out / "real_search.json", json.dumps(record))


if __name__ == "__main__":
    guarded(lambda: typer.run(bench))
