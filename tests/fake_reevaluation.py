"""A searched sweep that nobody trained, to be re-evaluated; as a program, `sonar front reeval` over trials made up.

What a trial comes to is a function of its replay and of its seed.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluated import evaluation, make_predictions, noisier

from sonar.config import from_dict, override, to_dict
from sonar.evaluate.record import Evaluation, split_folder, write_evaluation
from sonar.evaluate.run import compare
from sonar.experiment import TrialConfig
from sonar.search.journal import Journal
from sonar.search.reevaluation import ReevalConfig, Reevaluation
from sonar.search.repeat_source import RepeatSource
from sonar.search.repeats import REEVAL
from sonar.search.rerun import Chooser, Outcome
from sonar.search.source import Source
from sonar.search.sweep_audit import audit_sweep

STEPS, STEP_S = 3, 0.15
NUM_AUDITED = 3  # seeds
BIRDS, GENERAL = (make_predictions(seed, recordings=12) for seed in (1, 2))
BASE = evaluation(("birds", "target", BIRDS), ("general", "prior", GENERAL))


def judge(config: TrialConfig) -> Evaluation:
    """More replay: less forgetting and less plasticity; the seed alone changes the rest."""
    ratio, seed = config.sampling.replay_ratio, config.training.seed
    new = noisier(BIRDS, seed, noise=0.2, help_truth=2.0 - 2.0 * ratio)
    prior = noisier(GENERAL, 100 + seed, noise=0.2, help_truth=ratio - 0.7)
    return evaluation(("birds", "target", new), ("general", "prior", prior))


def told(found: Evaluation) -> dict[str, float]:
    """What a trial with that evaluation is told with."""
    return {**compare(BASE, found).metrics(), "model/steps": 6.0}


def with_ratio(ratio: float) -> TrialConfig:
    """The base configuration with another replay; its own is 0.5."""
    return override(TrialConfig(), {"sampling.replay_ratio": ratio})


def begin(journal: Journal, folder: Path, settings: Mapping[str, Any], ratios: Sequence[float]) -> None:
    """A searched sweep: the base as an anchor, then a trial per ratio."""
    config = TrialConfig()
    journal.append("sweep_created", **{**settings, "config": to_dict(config), "anchors": ["base"]})
    trials = {"anchor-base": config, **{f"trial-{n:03d}": with_ratio(ratio) for n, ratio in enumerate(ratios)}}
    for trial_id, config in trials.items():
        is_anchor = trial_id.startswith("anchor")
        found = BASE if is_anchor else judge(config)
        kind = "anchor" if is_anchor else "search"
        # An anchor of another configuration than the base, as presets are.
        plain = to_dict(override(config, {"training.model_steps": 1})) if is_anchor else to_dict(config)
        journal.append("suggested", trial_id=trial_id, kind=kind, params={}, config=plain)
        write_evaluation(found, split_folder(folder / "trials" / trial_id, "dev"))
        metrics = told(found) | ({"model/steps": 0.0} if is_anchor else {})
        journal.append("told", trial_id=trial_id, metrics=metrics, checkpoint=trial_id)


class Trials:
    """Runs the trials of a source one after the other, without training; `broken` ones diverge."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal, self.folder, self.ran = journal, folder, list[str]()
        self.broken: Callable[[str], bool] = lambda trial_id: False

    def __call__(self, source: Source) -> None:
        while (suggestion := source.suggest()) is not None:
            self.journal.append("started", trial_id=suggestion.trial_id)
            self.ran.append(suggestion.trial_id)
            if self.broken(suggestion.trial_id):
                source.fail(suggestion.trial_id, "loss is nan")
                continue
            found = judge(suggestion.config)
            write_evaluation(found, split_folder(self.folder / "trials" / suggestion.trial_id, "dev"))
            source.tell(suggestion.trial_id, told(found), f"checkpoints/{suggestion.trial_id}")


def baseline(folder: Path) -> str:
    """What the base scored, where a sweep keeps it."""
    write_evaluation(BASE, split_folder(folder / "baseline-1", "dev"))
    return str(folder / "baseline-1.json")


def reevaluate_alone(trials: Trials, config: ReevalConfig, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """As `reevaluate`, with an audit of three seeds, without Ray and without training."""
    journal, folder = trials.journal, trials.folder
    audit_sweep(journal, NUM_AUDITED, folder, baseline(folder), trials, lambda line: None)
    chooser = Chooser(journal, Reevaluation(folder, BASE, config), lambda line: None, clock)
    trials(RepeatSource(journal, REEVAL, chooser))
    return chooser.outcome()


def made_trial() -> Callable[..., None]:
    """A trial that takes some time and can be gone on with; nested, so that Ray takes it to its workers by value."""

    def trial(config: dict[str, Any], *, folder: str, **_: Any) -> None:
        from ray import tune

        place = Path(folder) / "trials" / config["trial_id"]
        place.mkdir(parents=True, exist_ok=True)
        state = place / "state"
        for step in range(1 + (int(state.read_text()) if state.exists() else 0), STEPS + 1):
            time.sleep(STEP_S)
            state.write_text(str(step))
            tune.report({"model/loss": 1.0 / step, "step": step})
        found = judge(from_dict(TrialConfig, config["config"]))
        write_evaluation(found, split_folder(place, "dev"))
        tune.report({"has_ended": True, "checkpoint_path": config["trial_id"], **told(found)})

    return trial


def main() -> None:
    """`python fake_reevaluation.py BASELINE front reeval SWEEP ...`: everything but audio, base and trials is real."""
    from unittest.mock import patch

    from sonar.cli import cli
    from sonar.search.prepare import Prepared

    baseline = sys.argv.pop(1)
    prepared = Prepared("new", "prior", "base", baseline, "embeddings")
    with (
        patch("sonar.search.rerun.prepare", lambda *_: prepared),
        patch("sonar.search.tuner.trainable", made_trial()),
    ):
        cli()


if __name__ == "__main__":
    main()
