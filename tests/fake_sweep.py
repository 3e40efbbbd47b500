"""A finished sweep that nobody trained: a journal with made-up results."""

import math
import random
from pathlib import Path
from typing import Any

from sonar.search.journal import Journal, SweepState
from sonar.search.run import JOURNAL_FILE

SETTINGS: dict[str, Any] = {
    "name": "bio",
    "domain": "bio",
    "config": {"training": {"seed": 0}},
    "space": {
        "sampling.replay_ratio": {"type": "Uniform", "low": 0.1, "high": 0.7},
        "distill.model_weight": {"type": "LogUniform", "low": 0.1, "high": 100.0},
        "codebook.anchor": {"type": "Choice", "values": ["centroid", "closest"]},
    },
    "objectives": {"plasticity": "max", "forgetting_rate": "min"},
    "forgetting_limit": 5.0,
    "num_trials": 12,
    "anchors": ["base", "dcpt"],
    "seed": 0,
    "provenance": {},
}


def metrics(plasticity: float, forgetting: float) -> dict[str, float]:
    return {
        "plasticity": plasticity,
        "forgetting_rate": forgetting,
        "forgetting_worst": forgetting + 1.5,
        "probe/target/birds/macro_f1": 50.0 + plasticity / 2,
        "probe/prior/general/macro_f1": 80.0 - forgetting,
        "trial_seconds": 12.5,
    }


def write_finished(folder: Path, num_trials: int = 12) -> SweepState:
    """Two anchors and `num_trials` trials with reports; the third one failed."""
    rng, ticks = random.Random(7), iter(range(10_000))
    with Journal(folder / JOURNAL_FILE, clock=lambda: 1e9 + next(ticks)) as journal:
        journal.append("sweep_created", **SETTINGS | {"num_trials": num_trials})
        for name, point in (("anchor-base", (0.0, 0.0)), ("anchor-dcpt", (9.0, 31.7))):
            journal.append("suggested", trial_id=name, kind="anchor", params={}, config={})
            journal.append("started", trial_id=name)
            journal.append("told", trial_id=name, metrics=metrics(*point), checkpoint=f"{folder}/{name}")
        for number in range(num_trials):
            trial_id = f"trial-{number:03d}"
            params = {
                "sampling.replay_ratio": rng.uniform(0.1, 0.7),
                "distill.model_weight": 10 ** rng.uniform(-1, 2),
                "codebook.anchor": rng.choice(["centroid", "closest"]),
            }
            journal.append("suggested", trial_id=trial_id, kind="search", params=params, config={})
            journal.append("started", trial_id=trial_id)
            for step in (1, 2):
                values = {"model/loss": 3.0 / step, "codebook/perplexity": math.nan if step == 1 else 9.5}
                journal.append("reported", trial_id=trial_id, step=step, metrics=values)
            if number == 2:
                journal.append("failed", trial_id=trial_id, reason="plasticity is nan")
                continue
            forgetting = 20 * (1 - params["sampling.replay_ratio"]) - 5 + rng.uniform(-1, 1)
            told = metrics(math.sqrt(forgetting + 10) * 2 + rng.uniform(-1, 1), forgetting)
            journal.append("told", trial_id=trial_id, metrics=told, checkpoint=f"{folder}/{trial_id}")
        return journal.state
