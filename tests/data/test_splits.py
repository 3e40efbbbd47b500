import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.data.manifest import SPLITS, Clip
from sonar.data.splits import assign_splits, check_group_splits, check_labelled_splits

PLAIN = Clip("", "", 0.0, 1.0, 16_000, 1, "c", "bio", (), "", "", "0" * 64)


def corpus(groups: list[tuple[tuple[str, ...], int]]) -> list[Clip]:
    """Clips of groups that are given by their labels and their number of clips."""
    return [
        PLAIN._replace(clip_id=f"{group}/{i}", labels=labels, group=f"g{group}")
        for group, (labels, size) in enumerate(groups)
        for i in range(size)
    ]


GROUPS = st.lists(
    st.tuples(st.sets(st.sampled_from("abcd"), max_size=2).map(lambda names: tuple(sorted(names))), st.integers(1, 6)),
    min_size=1,
    max_size=40,
)
SINGLE = st.lists(st.tuples(st.sampled_from("abcd").map(lambda name: (name,)), st.integers(1, 6)), min_size=1)


@given(groups=GROUPS, seed=st.integers(0, 5))
def test_no_group_stands_in_two_splits_and_order_does_not_matter(
    groups: list[tuple[tuple[str, ...], int]], seed: int
) -> None:
    clips = corpus(groups)
    assigned = assign_splits(clips, seed=seed)
    check_group_splits(assigned)
    assert [clip._replace(split="") for clip in assigned] == clips
    shuffled = clips.copy()
    random.Random(seed).shuffle(shuffled)
    assert set(assign_splits(shuffled, seed=seed)) == set(assigned)


@given(groups=SINGLE, seed=st.integers(0, 5))
def test_a_label_with_three_groups_is_in_every_split(groups: list[tuple[tuple[str, ...], int]], seed: int) -> None:
    found = defaultdict(set)
    num_groups = defaultdict(set)
    for clip in assign_splits(corpus(groups), seed=seed):
        found[clip.labels[0]].add(clip.split)
        num_groups[clip.labels[0]].add(clip.group)
    for label, splits in found.items():
        assert len(splits) == min(3, len(num_groups[label]))


def test_groups_with_every_label_are_in_every_split() -> None:
    speakers = corpus([(("anger",), 3)] * 3)
    speakers += [clip._replace(clip_id=clip.clip_id + "n", labels=("neutral",)) for clip in speakers]
    check_labelled_splits(assign_splits(speakers))


def test_a_group_moves_where_the_labels_would_collide() -> None:
    # Placed label by label, rare `b` and `c` take g0-g2 and g3-g5; `a` then finds its groups where they lie.
    for seed in range(20):
        clips = corpus(
            [(("a", "b"), 1), (("b",), 1), (("b",), 1), (("a", "c"), 1), (("c",), 1), (("c",), 1), (("a",), 1)]
        )
        check_labelled_splits(assign_splits(clips, seed=seed))


def test_shares_are_met_where_groups_are_many() -> None:
    assigned = assign_splits(corpus([((label,), 2) for label in "ab" for _ in range(50)]))
    for label in "ab":
        of_label = [clip.split for clip in assigned if clip.labels == (label,)]
        assert [of_label.count(split) for split in SPLITS] == [60, 20, 20]


def test_the_seed_changes_the_split() -> None:
    clips = corpus([(("a",), 1)] * 30)
    assert assign_splits(clips, seed=0) == assign_splits(clips, seed=0)
    assert assign_splits(clips, seed=0) != assign_splits(clips, seed=1)


def test_a_class_without_a_clip_in_a_split_is_named(make_clip: Callable[..., Clip]) -> None:
    clips = assign_splits(corpus([(("owl",), 4), (("owl",), 4)]))
    with pytest.raises(ValueError, match=r"corpus c: class 'owl' has no clip in split test; it has 2 recording groups"):
        check_labelled_splits(clips)
    check_labelled_splits([clip._replace(labels=()) for clip in clips])


def test_a_torn_group_is_named(make_clip: Callable[..., Clip]) -> None:
    with pytest.raises(ValueError, match=r"group 'g' stands in splits dev, train"):
        check_group_splits([make_clip("0", split="dev"), make_clip("1", split="train")])
