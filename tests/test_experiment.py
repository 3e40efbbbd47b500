"""The whole of a trial: the paper's numbers, presets of valid keys, and a round trip through plain values."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.config import ConfigError, dotted_keys, from_dict, override, to_dict
from sonar.experiment import PRESETS, TrialConfig, apply_preset


def test_defaults_are_the_papers_numbers() -> None:
    config = TrialConfig()
    assert (config.optim.lr, config.training.epochs) == (1e-4, 10)
    assert (config.distill.tokenizer_weight, config.distill.contrastive_weight) == (1e6, 10.0)
    assert (config.distill.temperature, config.distill.mask_ratio) == (0.3, 0.75)
    assert (config.codebook.usage_decay, config.codebook.ema_decay, config.codebook.anchor) == (0.9, 0.99, "centroid")
    assert config.sampling.replay_ratio == 0.5


def test_every_preset_changes_only_keys_that_exist() -> None:
    keys = dotted_keys(TrialConfig)
    for name, changes in PRESETS.items():
        assert changes.keys() <= keys.keys()
        plain, preset = to_dict(TrialConfig()), to_dict(apply_preset(TrialConfig(), name))
        for key in keys:
            section, _, field = key.partition(".")
            before, after = plain[section], preset[section]
            for part in field.split("."):
                before, after = before[part], after[part]
            assert after == changes.get(key, before), (name, key)


def test_the_sonar_preset_is_the_configuration_as_given() -> None:
    config = override(TrialConfig(), {"optim.lr": 3e-5})
    assert apply_preset(config, "sonar") == config


# A configuration of which every preset has something to change.
CONFIGURED: dict[str, Any] = {
    "sampling.replay_ratio": 0.3,
    "sampling.num_clusters": 7,
    "sampling.uniform_fraction": 0.1,
    "distill.tokenizer_weight": 1e4,
    "distill.model_weight": 3.0,
    "distill.model_layers": [1, 2],
    "distill.model_on": "prior",
    "distill.l2sp_weight": 0.5,
    "codebook.usage_decay": 0.99,
    "optim.lr": 3e-5,
    "training.interpolation": 0.9,
    "training.epochs": 2.0,
}


def parts_of_sonar(name: str) -> set[str]:
    """Which parts of the method a preset leaves on."""
    config = apply_preset(override(TrialConfig(), CONFIGURED), name)
    sampling, distill = config.sampling, config.distill
    parts = {
        "replay": sampling.replay_ratio > 0,
        "trss": sampling.replay_ratio > 0 and sampling.retrieval == "knn",
        "tokenizer distillation": distill.tokenizer_weight > 0,
        "model distillation": distill.model_weight > 0,
        "contrast": distill.contrastive_weight > 0,
        "revival": config.codebook.revival != "none",
        "l2sp": distill.l2sp_weight > 0,
        "predictor": distill.through_predictor,
        "interpolation": config.training.interpolation < 1,
    }
    return {part for part, is_on in parts.items() if is_on}


OCC = {"contrast", "revival"}
DISTILLATION = {"tokenizer distillation", "model distillation"}
WHOLE = {"replay", "trss"} | OCC | DISTILLATION
EXTRA = {"l2sp", "interpolation"}  # of CONFIGURED, not of SONAR


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sonar", WHOLE | EXTRA),
        ("sonar-paper", WHOLE),
        ("sonar-robust", WHOLE | EXTRA),
        ("dcpt", set()),
        ("dcpt-cold", set()),
        ("dcpt-random-replay", {"replay"}),
        ("only-trss", {"replay", "trss"}),
        ("only-distillation", DISTILLATION),
        ("only-occ", OCC),
        ("no-trss", (WHOLE | EXTRA) - {"trss"}),
        ("no-occ", (WHOLE | EXTRA) - OCC),
        ("no-tokenizer-distillation", (WHOLE | EXTRA) - {"tokenizer distillation"}),
        ("no-model-distillation", (WHOLE | EXTRA) - {"model distillation"}),
        ("l2sp", {"l2sp"}),
        ("cassle", {"model distillation", "predictor"}),
        ("dcpt-interpolated", {"interpolation"}),
        ("joint", {"replay"}),
    ],
)
def test_a_preset_leaves_on_the_parts_that_its_name_says(name: str, parts: set[str]) -> None:
    assert parts_of_sonar(name) == parts


def test_every_preset_is_in_the_table_of_the_documentation_and_no_other(root: Path) -> None:
    section = (root / "docs" / "method.md").read_text(encoding="utf-8").split("## Baselines")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, flags=re.MULTILINE) == list(PRESETS)


def test_replay_of_a_preset_has_the_ratio_that_is_configured() -> None:
    config = override(TrialConfig(), CONFIGURED)
    for name in ("dcpt-random-replay", "only-trss", "no-trss"):
        assert apply_preset(config, name).sampling.replay_ratio == 0.3


def test_the_papers_preset_is_the_default_method_at_the_configured_length() -> None:
    found, default = apply_preset(override(TrialConfig(), CONFIGURED), "sonar-paper"), TrialConfig()
    assert (found.distill, found.codebook) == (default.distill, default.codebook)
    assert found.sampling == replace(default.sampling, num_clusters=7)
    assert found.training == replace(default.training, epochs=2.0)
    assert found.optim == replace(default.optim, lr=3e-5)


def test_the_robust_preset_rehearses_the_rest_and_spares_codes_of_the_prior() -> None:
    config = apply_preset(TrialConfig(), "sonar-robust")
    assert config.sampling.uniform_fraction == 0.2
    codebook = config.codebook
    limits = (codebook.prior_usage_floor, codebook.max_revive_fraction, codebook.freeze_fraction)
    assert limits == (0.5, 0.05, 0.2)


def test_joint_training_takes_the_whole_prior_corpus_and_dcpt_none_of_it() -> None:
    joint = apply_preset(TrialConfig(), "joint")
    assert joint.sampling.retrieval == "all"
    assert apply_preset(joint, "dcpt").sampling.retrieval == "knn"


def test_numbers_that_the_baselines_papers_give_or_that_are_inferred() -> None:
    plain = TrialConfig()
    assert apply_preset(plain, "l2sp").distill.l2sp_weight == 0.1
    assert apply_preset(plain, "cassle").distill.model_weight == 1.0
    assert apply_preset(plain, "dcpt-interpolated").training.interpolation == 0.5


def test_dcpt_switches_off_replay_every_teacher_and_revival() -> None:
    config = apply_preset(override(TrialConfig(), {"optim.lr": 3e-5}), "dcpt")
    weights = (config.distill.tokenizer_weight, config.distill.model_weight, config.distill.contrastive_weight)
    assert (config.sampling.replay_ratio, *weights) == (0.0, 0.0, 0.0, 0.0)
    assert config.codebook.revival == "none"
    assert config.optim.lr == 3e-5
    cold = apply_preset(config, "dcpt-cold")
    assert cold.training.reset_heads and cold.training.head_steps == 0


def test_distillation_on_prior_clips_that_no_batch_holds_is_refused() -> None:
    on_prior = {"distill.model_on": "prior", "sampling.replay_ratio": 0.0}
    with pytest.raises(ConfigError, match=r"distill.model_on is 'prior', but sampling.replay_ratio is 0"):
        override(TrialConfig(), on_prior)
    assert override(TrialConfig(), {**on_prior, "distill.model_weight": 0.0}).distill.model_on == "prior"


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preset is called 'dctp'; there are sonar, sonar-paper, sonar-robust"):
        apply_preset(TrialConfig(), "dctp")


@given(seed=st.integers(0, 2**31), ratio=st.floats(0, 0.9), preset=st.sampled_from(sorted(PRESETS)))
def test_a_trial_comes_back_whole_from_json(seed: int, ratio: float, preset: str) -> None:
    config = override(apply_preset(TrialConfig(), preset), {"training.seed": seed, "sampling.replay_ratio": ratio})
    assert from_dict(TrialConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"training\.seed"):
        override(TrialConfig(), {"training.seeed": 1})
