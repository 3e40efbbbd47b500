"""The encoder's properties beyond the golden vectors: masks, visible-only passes, initialisation."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.model.attention import distance_buckets
from sonar.model.encoder import BeatsEncoder, EncoderConfig, patch_padding
from sonar.model.layer import TransformerConfig
from sonar.model.masking import random_mask
from sonar.model.transformer import Transformer

CLIPS, FRAMES, PATCHES = 2, 98, 48


@pytest.fixture
def log_mel(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(CLIPS, FRAMES, 128, generator=generator)


def test_base_has_90_million_parameters() -> None:
    with torch.device("meta"):
        encoder = BeatsEncoder(EncoderConfig())
    # 11 repeated tables of 320 x 12 position biases in the public count are one tensor there too.
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 90_311_792


def test_padding_divides_samples_evenly_and_not_by_the_hop() -> None:
    padding = torch.zeros(1, 16_000, dtype=torch.bool)
    padding[:, 163 * 50 :] = True
    frame, patch = patch_padding(padding, 98, 48)
    assert frame[0].tolist() == [False] * 50 + [True] * 48
    assert patch[0].tolist() == [False] * 25 + [True] * 23


def test_one_real_sample_keeps_a_frame() -> None:
    padding = torch.ones(1, 16_000, dtype=torch.bool)
    padding[0, 0] = False
    frame, patch = patch_padding(padding, 98, 48)
    assert frame.sum() == 97 and patch.sum() == 47


def test_a_clip_of_padding_only_is_refused_by_number() -> None:
    padding = torch.tensor([[False], [True]]).expand(2, 16_000)
    with pytest.raises(ValueError, match=r"clips \[1\] of the batch are padding only"):
        patch_padding(padding, 98, 48)
    with pytest.raises(ValueError, match="5 positions cannot be divided among 8"):
        patch_padding(torch.zeros(1, 5, dtype=torch.bool), 8, 8)


def test_all_patches_visible_equals_the_full_pass(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    every = torch.arange(PATCHES).expand(CLIPS, PATCHES)
    torch.testing.assert_close(tiny_encoder(log_mel, visible=every).last, tiny_encoder(log_mel).last, atol=2e-5, rtol=0)


def test_visible_with_padding_equals_the_full_pass_with_padding(
    tiny_encoder: BeatsEncoder, log_mel: torch.Tensor
) -> None:
    padding = torch.zeros(CLIPS, PATCHES, dtype=torch.bool)
    padding[1, 30:] = True
    visible = torch.arange(PATCHES).repeat(CLIPS, 1)
    full = tiny_encoder(log_mel, padding).last
    shown = tiny_encoder(log_mel, None, visible, padding).last
    torch.testing.assert_close(shown[~padding], full[~padding], atol=2e-5, rtol=0)


@given(seed=st.integers(0, 2**31), ratio=st.floats(0.1, 0.9))
@settings(max_examples=10, deadline=None)
def test_output_at_visible_patches_ignores_hidden_content(seed: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = EncoderConfig(
        num_layers=1,
        width=32,
        ffn_width=32,
        num_heads=2,
        patch_width=16,
        position_kernel=8,
        position_groups=2,
    )
    encoder = BeatsEncoder(config).initialise(generator).eval()
    log_mel = torch.randn(2, 48, 128, generator=generator)
    padding = torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 20:] = True
    mask = random_mask(padding, ratio, generator)
    hidden = mask.masked.view(2, 3, 8).repeat_interleave(16, 1).repeat_interleave(16, 2)  # (B, F, M)
    noise = torch.randn(log_mel.shape, generator=generator)
    arguments = (padding, mask.visible, mask.visible_padding)
    before = encoder(log_mel, *arguments).last
    after = encoder(torch.where(hidden, noise, log_mel), *arguments).last
    real = ~mask.visible_padding
    torch.testing.assert_close(after[real], before[real], atol=0, rtol=0)


def test_fillers_change_nothing(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    few = torch.tensor([[3, 10, 40]])
    filled = torch.tensor([[3, 10, 40, 47, 47]])
    fillers = torch.tensor([[False, False, False, True, True]])
    alone = tiny_encoder(log_mel[:1], visible=few).last
    with_fillers = tiny_encoder(log_mel[:1], None, filled, fillers).last[:, :3]
    torch.testing.assert_close(with_fillers, alone, atol=1e-5, rtol=0)


def test_position_bias_of_visible_patches_follows_true_distance(tiny_config: EncoderConfig) -> None:
    stack = Transformer(tiny_config)
    full, positions = stack.position_bias(20), torch.tensor([[0, 4, 19], [1, 2, 3]])
    assert full is not None
    part = stack.position_bias(20, positions)
    assert part is not None
    for clip, rows in enumerate(positions.tolist()):
        torch.testing.assert_close(part[clip], full[0][:, rows][:, :, rows], atol=0, rtol=0)


def test_buckets_are_t5s_exact_near_and_logarithmic_far() -> None:
    buckets = distance_buckets(900, 320, 800, torch.device("cpu"))
    zero = 899
    assert buckets[zero] == 0
    assert buckets[zero - 79 : zero].flip(0).tolist() == list(range(1, 80))  # keys before the query
    assert buckets[zero + 1 : zero + 80].tolist() == list(range(161, 240))
    expected = 80 + int(math.log(400 / 80) / math.log(10) * 80)
    assert buckets[zero - 400] == expected
    assert buckets[zero - 800 : zero - 798].tolist() == [159, 159] and buckets[-1] == 319


def test_training_works_after_a_first_use_in_inference_mode(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    distance_buckets.cache_clear()
    with torch.inference_mode():
        tiny_encoder(log_mel)
    tiny_encoder(log_mel).last.sum().backward()
    table = tiny_encoder.transformer.relative_bias
    assert table is not None and table.weight.grad is not None


def test_initialise_depends_on_the_generator_alone(tiny_config: EncoderConfig) -> None:
    torch.manual_seed(1)
    first = BeatsEncoder(tiny_config).initialise(torch.Generator().manual_seed(3)).state_dict()
    torch.manual_seed(2)
    second = BeatsEncoder(tiny_config).initialise(torch.Generator().manual_seed(3)).state_dict()
    other = BeatsEncoder(tiny_config).initialise(torch.Generator().manual_seed(4)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["patch_embedding.weight"], other["patch_embedding.weight"])


def test_deep_norm_scales_value_output_and_feed_forward() -> None:
    config = TransformerConfig(num_layers=2, width=256, ffn_width=256, num_heads=2)
    stack = Transformer(config)
    stack.initialise(torch.Generator().manual_seed(0))
    layer = stack.get_submodule("layers.0")
    query, key, value = layer.attention.qkv.weight.chunk(3)
    xavier, gain = (2 / 512) ** 0.5, 16**-0.25
    for weight, expected in ((query, 1.0), (key, 1.0), (value, gain), (layer.fc1.weight, gain)):
        assert weight.std().item() == pytest.approx(xavier * expected, rel=0.03)


def test_pre_norm_stack_runs_and_normalises_its_output(tiny_config: EncoderConfig, log_mel: torch.Tensor) -> None:
    config = dataclasses.replace(tiny_config, norm_first=True, deep_norm=False, gated=False, relative_position=False)
    encoder = BeatsEncoder(config).initialise(torch.Generator().manual_seed(0)).eval()
    last = encoder(log_mel).last
    torch.testing.assert_close(last.mean(-1), torch.zeros(CLIPS, PATCHES), atol=1e-5, rtol=0)


def test_layer_drop_and_dropout_act_in_training_only(tiny_config: EncoderConfig, log_mel: torch.Tensor) -> None:
    config = dataclasses.replace(tiny_config, layer_drop=0.9, dropout=0.5, attention_dropout=0.5)
    encoder = BeatsEncoder(config).initialise(torch.Generator().manual_seed(0))
    assert not torch.equal(encoder(log_mel).last, encoder(log_mel).last)
    encoder.eval()
    assert torch.equal(encoder(log_mel).last, encoder(log_mel).last)


def test_layer_n_stands_at_place_n_even_where_layers_are_dropped(
    tiny_config: EncoderConfig, log_mel: torch.Tensor
) -> None:
    config = dataclasses.replace(tiny_config, layer_drop=0.5, dropout=0.0, attention_dropout=0.0)
    encoder = BeatsEncoder(config).initialise(torch.Generator().manual_seed(0)).train()
    skipped = []
    for seed in range(4):
        torch.manual_seed(seed)
        hidden = encoder(log_mel, return_hidden=True).hidden
        assert len(hidden) == config.num_layers + 1
        skipped += [torch.equal(hidden[n], hidden[n + 1]) for n in range(config.num_layers)]
    assert any(skipped) and not all(skipped)


def test_bfloat16_autocast_stays_near_float32(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    padding = torch.zeros(CLIPS, PATCHES, dtype=torch.bool)
    padding[0, 40:] = True
    exact = tiny_encoder(log_mel, padding).last
    with torch.autocast("cpu", torch.bfloat16):
        rough = tiny_encoder(log_mel, padding).last
    assert (rough.float() - exact).abs().mean() < 0.02


def test_a_copy_is_independent(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    teacher = copy.deepcopy(tiny_encoder).requires_grad_(False)
    before = teacher(log_mel).last
    with torch.no_grad():
        tiny_encoder.patch_embedding.weight.add_(1.0)
    assert torch.equal(teacher(log_mel).last, before)


def test_wrong_shapes_are_named(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"log_mel has shape \(2, 15, 128\)"):
        tiny_encoder(log_mel[:, :15])
    with pytest.raises(ValueError, match=r"padding has shape \(2, 98\): it must be \(2, 48\)"):
        tiny_encoder(log_mel, torch.zeros(2, 98, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"visible_padding has shape \(2, 4\)"):
        tiny_encoder(log_mel, None, torch.arange(3).expand(2, 3), torch.zeros(2, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_heads": 5}, "not a multiple of num_heads 5"),
        ({"num_buckets": 7}, "num_buckets is 7"),
        ({"max_distance": 8}, "must exceed"),
        ({"relative_position": False}, "gated=True needs"),
        ({"norm_first": True}, "excludes norm_first"),
        ({"activation": "glu"}, "activation is 'glu'"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"gradient_decay": 0.0}, "gradient_decay is 0.0"),
        ({"position_groups": 7}, "position_groups 7"),
        ({"position_kernel": 0}, "position_kernel 0"),
        ({"input_dropout": -0.1}, "input_dropout is -0.1"),
    ],
)
def test_impossible_configs_are_refused(tiny_config: EncoderConfig, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_config, **changes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_gpu_equals_cpu(tiny_encoder: BeatsEncoder, log_mel: torch.Tensor) -> None:
    padding = torch.zeros(CLIPS, PATCHES, dtype=torch.bool)
    padding[0, 40:] = True
    expected = tiny_encoder(log_mel, padding).last
    actual = tiny_encoder.cuda()(log_mel.cuda(), padding.cuda()).last
    torch.testing.assert_close(actual.cpu(), expected, atol=2e-3, rtol=0)
