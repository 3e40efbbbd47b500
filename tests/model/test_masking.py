"""Masks: the share, the sides, the sorted indices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.model.masking import num_masked, random_mask


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=5),
    ratio=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_each_clip_hides_the_ratio_of_its_unpadded_patches(lengths: list[int], ratio: float, seed: int) -> None:
    padding = torch.arange(60) >= torch.tensor(lengths).unsqueeze(1)
    mask = random_mask(padding, ratio, torch.Generator().manual_seed(seed))
    assert torch.equal(num_masked(torch.tensor(lengths), ratio), mask.masked.sum(1))
    for clip, length in enumerate(lengths):
        hidden = int(mask.masked[clip].sum())
        assert hidden == min(max(round(length * ratio), 1), length - 1) or abs(hidden - length * ratio) <= 0.5
        assert 1 <= hidden <= length - 1
        shown = mask.visible[clip][~mask.visible_padding[clip]].tolist()
        expected = (~mask.masked[clip] & ~padding[clip]).nonzero().flatten().tolist()
        assert shown == expected
    assert torch.equal(mask.rows, mask.masked.flatten().nonzero().squeeze(1))
    assert not (mask.masked & padding).any()
    assert (mask.visible.diff(dim=1) >= 0).all()
    assert int((~mask.visible_padding).sum(1).max()) == mask.visible.shape[1]


def test_the_same_generator_state_gives_the_same_mask() -> None:
    padding = torch.zeros(3, 48, dtype=torch.bool)
    first, second = (random_mask(padding, 0.75, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.masked, second.masked)
    assert not torch.equal(first.masked[0], first.masked[1])


def test_every_patch_is_hidden_equally_often() -> None:
    padding = torch.zeros(4000, 8, dtype=torch.bool)
    share = random_mask(padding, 0.75, torch.Generator().manual_seed(0)).masked.float().mean(0)
    assert ((share - 0.75).abs() < 0.03).all()


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_ratio_that_hides_all_or_none_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="mask ratio is"):
        random_mask(torch.zeros(1, 8, dtype=torch.bool), ratio, torch.Generator())


def test_a_clip_with_one_patch_is_refused_by_number() -> None:
    padding = torch.zeros(2, 8, dtype=torch.bool)
    padding[1, 1:] = True
    with pytest.raises(ValueError, match=r"clips \[1\] of the batch have fewer than 2"):
        random_mask(padding, 0.75, torch.Generator())
