"""Real trials without Ray, each run once: what it came to is a line of a file, by its configuration."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from surface import Values

from sonar.checkpoint import load_checkpoint
from sonar.config import config_hash, to_dict
from sonar.data.stream import ClipStore
from sonar.evaluate.run import evaluate_encoder, find_tasks
from sonar.experiment import SMALL_SCALE, TrialConfig
from sonar.files import write_whole_text
from sonar.search.candidate_folders import read_offers
from sonar.search.prepare import Prepared
from sonar.search.trial import run_trial


class Place(NamedTuple):
    """An encoder of a trial: after so many steps of the model stage, at alpha between the base and that."""

    step: int
    alpha: float


class Measured(NamedTuple):
    """One trial: both axes by place, the last one of which is its end; processor seconds, all evaluations in them."""

    values: dict[Place, Values]
    seconds: float

    @property
    def end(self) -> Place:
        """What the trial leaves."""
        return max(self.values)


class Trials:
    """Real trials, each run once."""

    def __init__(self, out: Path, prepared: Prepared) -> None:
        """Read what OUT holds already; measure what one evaluation takes, once."""
        self._path, self._prepared = out / "trials.jsonl", prepared
        self._known: dict[str, Measured] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            row = json.loads(line)
            values = {Place(step, alpha): Values(*axes) for step, alpha, *axes in row["values"]}
            self._known[row["key"]] = Measured(values, row["seconds"])
        cost = out / "evaluation.json"
        if not cost.exists():
            write_whole_text(cost, json.dumps(_evaluation_seconds(prepared)))
        self.evaluation_seconds: float = json.loads(cost.read_text())

    def run(self, config: TrialConfig) -> Measured:
        """What a configuration comes to."""
        shared = [Path(path).name for path in self._prepared]
        key = config_hash({"config": to_dict(config), "prepared": shared}, ignore=("config.base",))
        if key not in self._known:
            self._known[key] = found = self._run(config)
            row = {"key": key, "seconds": found.seconds, "config": to_dict(config)}
            row["values"] = [[*place, *axes] for place, axes in found.values.items()]
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return self._known[key]

    def _run(self, config: TrialConfig) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            metrics = run_trial(
                config, self._prepared, Path(folder), lambda step: None, keep_candidates=bool(config.evaluation.every)
            ).metrics
            seconds = time.process_time() - began
            values = {Place(offer.step, offer.alpha): _axes(offer.metrics) for offer in read_offers(Path(folder))}
        return Measured(values | {Place(config.training.model_steps or 0, 1.0): _axes(metrics)}, seconds)


def _axes(metrics: dict[str, float]) -> Values:
    return Values(metrics["plasticity"], metrics["forgetting_rate"])


def _evaluation_seconds(prepared: Prepared) -> float:
    encoder = load_checkpoint(prepared.base).encoder
    tasks = find_tasks(ClipStore(prepared.new_shards), ClipStore(prepared.prior_shards))
    found = []
    for _ in range(3):
        began = time.process_time()
        evaluate_encoder(encoder, tasks, SMALL_SCALE.probe)
        found.append(time.process_time() - began)
    return statistics.median(found)
