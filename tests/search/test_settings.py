"""What the journal says of a sweep is enough to go on with it, whatever fields a sweep has."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sonar.config import ConfigError, override
from sonar.experiment import TrialConfig
from sonar.search.convergence import Convergence
from sonar.search.halving import HalvingConfig
from sonar.search.journal import Journal
from sonar.search.prepare import Sources
from sonar.search.settings import RunOptions, options_of, settings_of, sweep_of
from sonar.search.space import Sweep, choice, int_uniform, log_uniform, read_space, uniform

SWEEP = Sweep(
    domain="bio",
    name="night",
    base=override(TrialConfig(), {"training.seed": 3, "optim.lr": 2e-4, "evaluation.every": 5}),
    space={
        "sampling.replay_ratio": uniform(0.1, 0.7),
        "distill.model_weight": log_uniform(0.1, 100.0),
        "codebook.anchor": choice("centroid", "closest"),
        "sampling.num_clusters": int_uniform(20, 200),
    },
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=7,
    forgetting_limit=3.5,
    anchors=("base",),
    halving=HalvingConfig(),
    sampler="nsga2",
    budget_hours=2.5,
    converge=Convergence(num_trials=8, gain_percent=0.5),
    audit_seeds=3,
    warm_start="runs/day",
)


def options(storage: Path) -> RunOptions:
    return RunOptions(
        sources=Sources("bio", "birds", ("music", "speech")),
        storage=storage,
        ray="10.0.0.1:6379",
        max_concurrent=3,
        seed=11,
        resume=True,
        mlflow="http://tracker",
        keep_all=True,
    )


def kept(folder: Path) -> dict[str, Any]:
    """The settings as a journal gives them back."""
    with Journal(folder / "journal.jsonl") as journal:
        journal.append("sweep_created", **settings_of(SWEEP, options(folder.parent)))
        return journal.state.settings


def test_a_sweep_and_its_options_come_back_from_the_journal_with_every_field(tmp_path: Path) -> None:
    for thing in (SWEEP, options(tmp_path)):
        same = [f.name for f in dataclasses.fields(thing) if getattr(thing, f.name) == f.default]
        assert same == [], "give it another value here, so that losing it shows"
    settings = kept(tmp_path / "night")
    assert sweep_of(settings) == SWEEP
    assert options_of(settings, tmp_path / "night") == options(tmp_path)


def test_a_moved_storage_is_where_it_goes_on(tmp_path: Path) -> None:
    settings = kept(tmp_path / "night")
    assert options_of(settings, Path("/elsewhere/night")).storage == Path("/elsewhere")
    with pytest.raises(ConfigError, match="holds the sweep 'night'; give the folder that name again"):
        options_of(settings, Path("/elsewhere/day"))


@pytest.mark.parametrize("name", ["domain", "num_trials", "config", "objectives"])
def test_a_journal_that_does_not_say_enough_is_refused(name: str, tmp_path: Path) -> None:
    settings = kept(tmp_path / "night")
    del settings[name]
    with pytest.raises(ConfigError, match=f"does not say: {'base' if name == 'config' else name}; resume by the"):
        sweep_of(settings)


def test_a_journal_of_before_options_were_kept_is_refused(tmp_path: Path) -> None:
    settings = kept(tmp_path / "night")
    del settings["options"]
    with pytest.raises(ConfigError, match="does not say: options; resume by the script"):
        options_of(settings, tmp_path / "night")


def test_an_unknown_kind_of_dimension_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a' is a 'Normal'; there are Uniform"):
        read_space({"a": {"type": "Normal", "mean": 0}})


def test_settings_are_fit_for_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(settings_of(SWEEP, options(tmp_path)))) == kept(tmp_path / "night")
