"""No recording stands on two sides, and every class that can be is in every split."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.manifest import SPLITS, Clip
from sonar.data.splits import assign_splits, check_group_splits, check_labelled_splits

MakeClip = Callable[..., Clip]


def corpus(make_clip: MakeClip, rows: Sequence[tuple[tuple[str, ...], str]]) -> list[Clip]:
    return [make_clip(f"c{i}", labels=labels, group=group, split="") for i, (labels, group) in enumerate(rows)]


def splits_of_groups(clips: Sequence[Clip]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for clip in clips:
        found[clip.group].add(clip.split)
    return found


any_rows = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), max_size=2, unique=True).map(tuple), st.sampled_from("uvwxyz123456")),
    min_size=1,
    max_size=40,
)
one_label_per_group = st.dictionaries(  # label -> sizes of its groups
    st.sampled_from("abcde"), st.lists(st.integers(1, 6), min_size=3, max_size=10), min_size=1
)


@settings(max_examples=50, deadline=None)
@given(rows=any_rows, seed=st.integers(0, 3))
def test_no_group_is_in_two_splits(make_clip: MakeClip, rows: list[tuple[tuple[str, ...], str]], seed: int) -> None:
    clips = corpus(make_clip, rows)
    placed = assign_splits(clips, seed=seed)
    assert all(len(splits) == 1 for splits in splits_of_groups(placed).values())
    assert [clip._replace(split="") for clip in placed] == clips
    assert {clip.split for clip in placed} <= set(SPLITS)
    check_group_splits(placed)


@settings(max_examples=50, deadline=None)
@given(sizes=one_label_per_group, seed=st.integers(0, 3))
def test_every_class_of_three_groups_is_in_all_splits(
    make_clip: MakeClip, sizes: dict[str, list[int]], seed: int
) -> None:
    rows = [((label,), f"{label}{g}") for label, of in sizes.items() for g, n in enumerate(of) for _ in range(n)]
    placed = assign_splits(corpus(make_clip, rows), seed=seed)
    check_labelled_splits(placed)
    for label in sizes:
        assert {clip.split for clip in placed if label in clip.labels} == set(SPLITS)


@settings(max_examples=30, deadline=None)
@given(rows=any_rows, order=st.randoms(use_true_random=False))
def test_the_order_of_the_clips_changes_nothing(
    make_clip: MakeClip, rows: list[tuple[tuple[str, ...], str]], order: random.Random
) -> None:
    clips = corpus(make_clip, rows)
    shuffled = list(clips)
    order.shuffle(shuffled)
    assert sorted(assign_splits(shuffled)) == sorted(assign_splits(clips))


def test_the_shares_of_equal_groups_are_60_20_20(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [((label,), f"{label}{i}") for label in "ab" for i in range(20)])
    for label in "ab":
        placed = Counter(clip.split for clip in assign_splits(clips) if clip.labels == (label,))
        assert placed == {"train": 12, "dev": 4, "test": 4}


def test_the_shares_asked_for_are_the_shares_given(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [(("a",), str(i)) for i in range(100)])
    placed = assign_splits(clips, fractions={"train": 0.8, "dev": 0.15, "test": 0.05})
    assert Counter(clip.split for clip in placed) == {"train": 80, "dev": 15, "test": 5}


def test_the_seed_changes_the_split_and_nothing_else_does(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [(("a",), str(i)) for i in range(30)])
    assert assign_splits(clips, seed=1) == assign_splits(clips, seed=1)
    assert assign_splits(clips, seed=1) != assign_splits(clips, seed=2)


def test_labels_that_share_a_recording_can_all_be_in_all_splits(make_clip: MakeClip) -> None:
    """Placed label by label, "b" would find 1 and 2 in one split."""
    rows = [(("a",), "1"), (("a",), "3"), (("a",), "4"), (("c",), "2"), (("c",), "5"), (("c",), "6")]
    rows += [(("b",), "1"), (("b",), "2"), (("b",), "7")]
    for seed in range(10):
        check_labelled_splits(assign_splits(corpus(make_clip, rows), seed=seed))


@pytest.mark.parametrize("missing", SPLITS)
def test_a_class_that_a_split_lacks_is_named(missing: str, make_clip: MakeClip) -> None:
    whole = [make_clip(f"w{split}", split=split) for split in SPLITS]
    lacking = [make_clip(f"o{split}", split=split, labels=("owl",), group="g") for split in SPLITS if split != missing]
    check_labelled_splits(whole)
    with pytest.raises(
        ValueError, match=f"corpus birds: class 'owl' has no clip in split {missing}; it has 1 recording groups"
    ):
        check_labelled_splits([*whole, *lacking])


def test_a_corpus_without_labels_needs_no_split(make_clip: MakeClip) -> None:
    check_labelled_splits([make_clip("a", labels=())])


def test_the_same_class_of_another_corpus_does_not_count(make_clip: MakeClip) -> None:
    clips = [make_clip(split, split=split, corpus="two" if split == "dev" else "one") for split in SPLITS]
    with pytest.raises(ValueError, match="corpus one: class 'wren' has no clip in split dev"):
        check_labelled_splits(clips)


def test_a_recording_that_is_torn_apart_is_named(make_clip: MakeClip) -> None:
    clips = [make_clip("a", group="day1"), make_clip("b", group="day1", split="test"), make_clip("c")]
    with pytest.raises(ValueError, match=r"group 'day1' stands in splits test, train: .* must be in one split"):
        check_group_splits(clips)
