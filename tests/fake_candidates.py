"""A finished sweep that nobody trained, with candidates on the way, between base and end, and what they predicted."""

import json
from pathlib import Path

import numpy as np
from evaluated import evaluation, make_predictions, noisier
from fake_sweep import SETTINGS

from sonar.evaluate.axis_intervals import AxisResamples
from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.record import Evaluation, split_folder, write_evaluation
from sonar.evaluate.run import compare
from sonar.search.candidate_folders import Offer
from sonar.search.journal import Journal, SweepState
from sonar.search.retention import Retention, take_offers
from sonar.search.run import JOURNAL_FILE

STEPS = 60
RESAMPLING = Resampling(num=300)
TARGET, PRIOR = (make_predictions(seed, recordings=12, skill=1.0) for seed in (1, 2))
BASE = evaluation(("birds", "target", TARGET), ("general", "prior", PRIOR))


def adapted(seed: int, gain: float, loss: float) -> Evaluation:
    """Better on the target by `gain` in the scores of the true class, worse on the prior task by `loss`."""
    target, prior = noisier(TARGET, seed, 0.1, gain), noisier(PRIOR, seed, 0.1, -loss)
    return evaluation(("birds", "target", target), ("general", "prior", prior))


class _Writer:
    def __init__(self, folder: Path, journal: Journal) -> None:
        self.trials, self.journal = folder.resolve() / "trials", journal
        self.resamples = AxisResamples(BASE, RESAMPLING)

    def numbers(self, scored: Evaluation) -> dict[str, float]:
        return compare(BASE, scored).metrics() | self.resamples.intervals(scored).metrics()

    def offer(self, trial: Path, step: int, alpha: float, scored: Evaluation) -> None:
        offer = Offer(step, alpha, self.numbers(scored))
        folder = offer.folder(trial)
        write_evaluation(scored, split_folder(folder, "dev"))
        if alpha == 1:
            (folder / "checkpoint").mkdir()
        (folder / "candidate.json").write_text(json.dumps(offer._asdict()))

    def trial(self, trial_id: str, kind: str, seed: int, steps: int = STEPS, gain: float = 0.8) -> None:
        """A trial that gains and forgets the more, the longer it trains and the higher its seed."""
        trial = self.trials / trial_id
        params = {"sampling.replay_ratio": 0.1 * seed} if kind == "search" else {}
        self.journal.append("suggested", trial_id=trial_id, kind=kind, params=params)
        self.journal.append("started", trial_id=trial_id)

        def scored(share: float) -> Evaluation:
            if not steps:
                return BASE
            return adapted(seed, gain * np.sqrt(share * seed), 0.3 * share * seed)

        for step in range(20, steps, 20):
            self.offer(trial, step, 1.0, scored(step / steps))
            take_offers(self.journal, trial_id, trial)
        for alpha in (0.25, 0.5) if steps else ():
            self.offer(trial, steps, alpha, scored(alpha))
        take_offers(self.journal, trial_id, trial)
        write_evaluation(scored(1.0), split_folder(trial, "dev"))
        (trial / "checkpoint").mkdir(parents=True)
        told = self.numbers(scored(1.0)) | {"model/steps": steps}
        self.journal.append("told", trial_id=trial_id, metrics=told, checkpoint=str(trial / "checkpoint"))


def write_candidates(folder: Path, num_trials: int = 3) -> SweepState:
    """The base, DCPT, `num_trials` trials and one that gains nothing; what is off the front is gone."""
    ticks = iter(range(10_000))
    with Journal(folder / JOURNAL_FILE, clock=lambda: 1e9 + next(ticks)) as journal:
        journal.append("sweep_created", **SETTINGS | {"num_trials": num_trials})
        retention, writer = Retention(journal, folder), _Writer(folder, journal)
        writer.trial("anchor-base", "anchor", 0, steps=0)
        writer.trial("anchor-dcpt", "anchor", 6)
        for number in range(num_trials):
            writer.trial(f"trial-{number:03d}", "search", number + 1)
            retention.update()
        writer.trial("trial-poor", "search", 3, gain=-1.0)
        retention.update()
        return journal.state
