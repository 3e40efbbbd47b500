"""The whole of a trial: the paper's numbers, presets of valid keys, and a round trip through plain values."""

import json

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


def test_dcpt_switches_off_replay_every_teacher_and_revival() -> None:
    config = apply_preset(override(TrialConfig(), {"optim.lr": 3e-5}), "dcpt")
    weights = (config.distill.tokenizer_weight, config.distill.model_weight, config.distill.contrastive_weight)
    assert (config.sampling.replay_ratio, *weights) == (0.0, 0.0, 0.0, 0.0)
    assert config.codebook.revival == "none"
    assert config.optim.lr == 3e-5
    cold = apply_preset(config, "dcpt-cold")
    assert cold.training.reset_heads and cold.training.head_steps == 0


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preset is called 'dctp'; there are sonar, base, dcpt, dcpt-cold"):
        apply_preset(TrialConfig(), "dctp")


@given(seed=st.integers(0, 2**31), ratio=st.floats(0, 0.9), preset=st.sampled_from(sorted(PRESETS)))
def test_a_trial_comes_back_whole_from_json(seed: int, ratio: float, preset: str) -> None:
    config = override(apply_preset(TrialConfig(), preset), {"training.seed": seed, "sampling.replay_ratio": ratio})
    assert from_dict(TrialConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"training\.seed"):
        override(TrialConfig(), {"training.seeed": 1})
