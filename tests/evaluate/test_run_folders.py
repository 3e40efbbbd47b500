"""Where runs lie, and what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluated import evaluation, make_predictions, write_run

from sonar.evaluate.run_folders import RunFolder, base_beside, check_same_base, check_seeds, config_difference, read_run

MADE = evaluation(("birds", "target", make_predictions(1)), ("general", "prior", make_predictions(2)))


def test_a_run_is_found_by_its_folder_its_place_in_a_sweep_or_its_evaluation(tmp_path: Path) -> None:
    trial = write_run(tmp_path / "bio" / "trials" / "trial-003", MADE)
    for given in (trial, tmp_path / "bio" / "trial-003", trial / "evaluation" / "dev"):
        assert read_run(given).evaluation.scores("target") == MADE.scores("target")
    with pytest.raises(FileNotFoundError, match=r"no evaluation at .*trial-004.*give the folder of a finished trial"):
        read_run(tmp_path / "bio" / "trial-004")


def test_only_keys_that_differ_are_a_difference(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a", MADE, {"optim": {"lr": 1.0, "betas": [0.9]}, "seed": 1}))
    second = read_run(write_run(tmp_path / "b", MADE, {"optim": {"lr": 2.0, "betas": [0.9]}, "steps": 4, "seed": 1}))
    assert config_difference(first, second) == {"optim.lr": (1.0, 2.0), "steps": (None, 4)}
    unknown = read_run(tmp_path / "a" / "evaluation" / "dev")
    assert unknown.config == {} and config_difference(first, unknown) == {}


def test_the_base_of_a_sweep_is_found_beside_its_trials(tmp_path: Path) -> None:
    trials = tmp_path / "bio" / "trials"
    first, second = (read_run(write_run(trials / name, MADE)) for name in ("trial-000", "trial-001"))
    assert base_beside(first, second) is None
    write_run(trials / "anchor-base", MADE)
    assert base_beside(first, second) == trials.resolve() / "anchor-base"
    assert base_beside(first, read_run(write_run(tmp_path / "elsewhere", MADE))) is None


def test_runs_of_different_bases_are_refused(tmp_path: Path) -> None:
    first = read_run(write_run(tmp_path / "a", MADE, base="base-1"))
    second = read_run(write_run(tmp_path / "b", MADE, base="base-2"))
    check_same_base(first, first, read_run(tmp_path / "a" / "evaluation" / "dev"))
    with pytest.raises(ValueError, match=r"different bases \(.*a from base-1, .*b from base-2\); leave --base out"):
        check_same_base(first, second)


def test_what_a_run_was_made_by_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", MADE, {"training": {"seed": 3}}, base="base-9")
    assert json.loads((folder / "checkpoint" / "provenance.json").read_text())["base"] == "base-9"
    assert (read_run(folder).config, read_run(folder).base) == ({"training.seed": 3}, "base-9")


def test_seeds_of_one_configuration_differ_in_their_seeds_and_nothing_else(tmp_path: Path) -> None:
    def run(name: str, **config: float) -> RunFolder:
        training = {"seed": config.pop("seed")}
        return read_run(write_run(tmp_path / name, MADE, {"training": training, "optim": config}))

    first, second, same = run("a", seed=0, lr=1.0), run("b", seed=1, lr=1.0), run("c", seed=0, lr=1.0)
    unknown = read_run(tmp_path / "c" / "evaluation" / "dev")
    check_seeds(first, second, unknown)
    for other in (first, same):
        with pytest.raises(ValueError, match="are the same run or have the same seed; give runs of different seeds"):
            check_seeds(first, second, other)
    with pytest.raises(ValueError, match=r"differ in optim.lr; give runs of one configuration under several seeds"):
        check_seeds(first, run("d", seed=2, lr=2.0))
