"""No recording stands on two sides, and every class that can be is in every split."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.manifest import SPLITS, Clip
from sonar.data.splits import Held, check_group_splits, check_labelled_splits, complete_splits, split_report

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
    placed = complete_splits(clips, seed=seed)
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
    placed = complete_splits(corpus(make_clip, rows), seed=seed)
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
    assert sorted(complete_splits(shuffled)) == sorted(complete_splits(clips))


def test_the_shares_of_equal_groups_are_60_20_20(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [((label,), f"{label}{i}") for label in "ab" for i in range(20)])
    for label in "ab":
        placed = Counter(clip.split for clip in complete_splits(clips) if clip.labels == (label,))
        assert placed == {"train": 12, "dev": 4, "test": 4}


def test_the_shares_asked_for_are_the_shares_given(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [(("a",), str(i)) for i in range(100)])
    placed = complete_splits(clips, fractions={"train": 0.8, "dev": 0.15, "test": 0.05})
    assert Counter(clip.split for clip in placed) == {"train": 80, "dev": 15, "test": 5}


def test_the_seed_changes_the_split_and_nothing_else_does(make_clip: MakeClip) -> None:
    clips = corpus(make_clip, [(("a",), str(i)) for i in range(30)])
    assert complete_splits(clips, seed=1) == complete_splits(clips, seed=1)
    assert complete_splits(clips, seed=1) != complete_splits(clips, seed=2)


def test_labels_that_share_a_recording_can_all_be_in_all_splits(make_clip: MakeClip) -> None:
    """Placed label by label, "b" would find 1 and 2 in one split."""
    rows = [(("a",), "1"), (("a",), "3"), (("a",), "4"), (("c",), "2"), (("c",), "5"), (("c",), "6")]
    rows += [(("b",), "1"), (("b",), "2"), (("b",), "7")]
    for seed in range(10):
        check_labelled_splits(complete_splits(corpus(make_clip, rows), seed=seed))


@pytest.mark.parametrize("missing", SPLITS)
def test_a_class_that_a_split_lacks_is_named(missing: str, make_clip: MakeClip) -> None:
    whole = [make_clip(f"w{split}", split=split) for split in SPLITS]
    lacking = [make_clip(f"o{split}", split=split, labels=("owl",), group="g") for split in SPLITS if split != missing]
    check_labelled_splits(whole)
    with pytest.raises(
        ValueError, match=f"corpus birds: class 'owl' has no clip in split {missing}: it has 1 recording group; 3 "
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


@pytest.mark.parametrize(
    ("given", "unsplit", "dealt"),
    [
        ({}, 100, {"train": 60, "dev": 20, "test": 20}),
        ({"test": 40}, 60, {"train": 45, "dev": 15}),
        ({"dev": 20}, 80, {"train": 60, "test": 20}),
        ({"dev": 20, "test": 20}, 60, {"train": 60}),
        ({"train": 60}, 40, {"dev": 20, "test": 20}),
        ({"train": 90}, 10, {"dev": 5, "test": 5}),
        ({"train": 10}, 90, {"train": 50, "dev": 20, "test": 20}),
        ({"train": 60, "test": 20}, 20, {"dev": 20}),
        ({"train": 10, "test": 20}, 70, {"train": 50, "dev": 20}),
        ({"train": 60, "dev": 20}, 20, {"test": 20}),
        ({"train": 1, "dev": 1, "test": 1}, 97, {"train": 97}),
        ({"train": 60, "dev": 20, "test": 20}, 0, {}),
    ],
    ids=str,
)
def test_clips_without_a_split_fill_what_the_given_ones_leave_open(
    make_clip: MakeClip, given: dict[str, int], unsplit: int, dealt: dict[str, int]
) -> None:
    clips = [make_clip(f"{s}{i}", group=f"{s}{i}", split=s) for s, count in given.items() for i in range(count)]
    clips += [make_clip(f"u{i}", group=f"u{i}", split="") for i in range(unsplit)]
    completed = complete_splits(clips)
    assert Counter(after.split for before, after in zip(clips, completed, strict=True) if not before.split) == dealt
    assert all(after.split == before.split for before, after in zip(clips, completed, strict=True) if before.split)


def test_a_class_that_no_given_clip_holds_is_still_trained(make_clip: MakeClip) -> None:
    given = [make_clip(f"w{i}", group=f"w{i}") for i in range(60)]
    owls = [make_clip(f"o{i}", group=f"o{i}", labels=("owl",), split="") for i in range(10)]
    assert Counter(clip.split for clip in complete_splits([*given, *owls])[60:]) == {"train": 6, "dev": 2, "test": 2}


@settings(max_examples=50, deadline=None)
@given(rows=any_rows, data=st.data())
def test_given_clips_never_move_and_their_groups_join_them(
    make_clip: MakeClip, rows: list[tuple[tuple[str, ...], str]], data: st.DataObject
) -> None:
    groups = sorted({group for _, group in rows})
    official = data.draw(st.dictionaries(st.sampled_from(groups), st.sampled_from(SPLITS)))
    stated = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    clips = [
        clip._replace(split=official.get(clip.group, "") if says else "")
        for clip, says in zip(corpus(make_clip, rows), stated, strict=True)
    ]
    completed = complete_splits(clips)
    check_group_splits(completed)
    where = {clip.group: clip.split for clip in clips if clip.split}
    assert all(clip.split == where.get(clip.group, clip.split) for clip in completed)
    held = set(where.values())
    dealt = {clip.split for clip in completed if clip.group not in where}
    assert dealt <= {"train", *(set(SPLITS) - held)}


def test_each_corpus_is_dealt_by_itself(make_clip: MakeClip) -> None:
    official = [make_clip(f"a{i}", group=f"a{i}", corpus="a") for i in range(5)]
    free = [make_clip(f"b{i}", group=f"b{i}", corpus="b", split="") for i in range(10)]
    assert Counter(clip.split for clip in complete_splits([*official, *free])[5:]) == {"train": 6, "dev": 2, "test": 2}
    assert complete_splits([*official, *free])[5:] == complete_splits(free)


def test_a_group_with_two_given_splits_is_refused(make_clip: MakeClip) -> None:
    clips = [make_clip("a", split="dev"), make_clip("b", split="test"), make_clip("c", split="")]
    with pytest.raises(ValueError, match="group 'g' stands in splits dev, test"):
        complete_splits(clips)


@pytest.mark.parametrize("fractions", [{}, {"train": 0.9}, {"train": 1.1, "dev": -0.1}, {"train": 0.5, "valid": 0.5}])
def test_fractions_that_are_no_shares_of_a_whole_are_refused(make_clip: MakeClip, fractions: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give splits of train, dev, test shares above 0 that add up to 1"):
        complete_splits([make_clip("a", split="")], fractions=fractions)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=30, max_size=60),
    added=st.lists(st.integers(1, 3), max_size=8),
    seed=st.integers(0, 9),
)
def test_added_groups_move_few_others_and_none_of_another_class(
    make_clip: MakeClip, sizes: list[int], added: list[int], seed: int
) -> None:
    """At the cuts at 60 and 80 % move at most as many clips as were added, and one group."""
    wrens = [(("wren",), f"w{group}") for group, size in enumerate(sizes) for _ in range(size)]
    owls = [(("owl",), f"o{group}") for group in range(5)]
    new = [(("wren",), f"n{group}") for group, size in enumerate(added) for _ in range(size)]
    before = complete_splits(corpus(make_clip, wrens + owls), seed=seed)
    after = complete_splits(corpus(make_clip, wrens + owls + new), seed=seed)[: len(before)]
    moved = Counter(one.labels for one, other in zip(before, after, strict=True) if one != other)
    assert moved[("owl",)] == 0
    assert moved[("wren",)] <= 0.6 * sum(added) + 0.8 * sum(added) + 2 * max(sizes)
    assert added or not moved


def unevenness(clips: Sequence[Clip]) -> float:
    """Mean over labels and splits of how far the share of the label's clips is from 60/20/20 (Sechidis' LD)."""
    totals = Counter(label for clip in clips for label in clip.labels)
    held = Counter((label, clip.split) for clip in clips for label in clip.labels)
    shares = {"train": 0.6, "dev": 0.2, "test": 0.2}
    return sum(abs(held[k, s] / n - shares[s]) for k, n in totals.items() for s in shares) / (3 * len(totals))


def iterative_stratification(clips: Sequence[Clip], seed: int) -> list[Clip]:
    """Sechidis et al., ECML PKDD 2011, algorithm 1, with groups in place of examples."""
    draw, shares = random.Random(seed), {"train": 0.6, "dev": 0.2, "test": 0.2}
    holds: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        holds[clip.group].update(clip.labels)
    totals = Counter(label for clip in clips for label in clip.labels)
    wants = {s: {k: share * n for k, n in totals.items()} for s, share in shares.items()}
    room = {s: share * len(clips) for s, share in shares.items()}
    sizes, left, placed = Counter(clip.group for clip in clips), set(holds), {}
    while left:
        remaining = Counter(label for group in sorted(left) for label in holds[group])
        if not remaining:
            placed.update(dict.fromkeys(left, "train"))
            break
        rarest = min(remaining, key=lambda label: (remaining[label], label))
        for group in sorted(group for group in left if holds[group][rarest]):
            split = max(shares, key=lambda s: (wants[s][rarest], room[s], draw.random()))
            placed[group] = split
            left.remove(group)
            room[split] -= sizes[group]
            for label, count in holds[group].items():
                wants[split][label] -= count
    return [clip._replace(split=placed[clip.group]) for clip in clips]


@pytest.mark.parametrize("num_labels", [5, 20, 60])
def test_clips_of_several_labels_are_dealt_as_evenly_as_by_iterative_stratification(
    make_clip: MakeClip, num_labels: int
) -> None:
    """Labels from common to rare, one to four a clip, recordings of one to three clips.

    And no label of three recordings lacks a split, as 34 do by iterative stratification where there are 60.
    """
    ours, theirs, by_hash = [], [], []
    for seed in range(5):
        draw = random.Random(seed)
        rows = []
        for group in range(200):
            labels = {f"{int(num_labels * draw.random() ** 2)}" for _ in range(draw.randint(1, 4))}
            rows += [(tuple(sorted(labels)), f"g{group}")] * draw.randint(1, 3)
        clips = corpus(make_clip, rows)
        completed = complete_splits(clips, seed=seed)
        assert not any(row.reason and "3 splits need 3" not in row.reason for row in split_report(completed, given=()))
        ours.append(unevenness(completed))
        theirs.append(unevenness(iterative_stratification(clips, seed)))
        where = {f"g{group}": draw.choices(SPLITS, (6, 2, 2))[0] for group in range(200)}
        by_hash.append(unevenness([clip._replace(split=where[clip.group]) for clip in clips]))
    assert sum(ours) <= 1.1 * sum(theirs)
    assert sum(ours) < 0.7 * sum(by_hash)


@settings(max_examples=50, deadline=None)
@given(rows=any_rows, seed=st.integers(0, 3))
def test_the_report_counts_what_is_there_and_gives_a_reason_for_what_is_not(
    make_clip: MakeClip, rows: list[tuple[tuple[str, ...], str]], seed: int
) -> None:
    clips = complete_splits(corpus(make_clip, rows), seed=seed)
    report = split_report(clips, given=())
    assert {row.label for row in report} == {label for clip in clips for label in clip.labels or ("",)}
    for row in report:
        for split, held in zip(SPLITS, (row.train, row.dev, row.test), strict=True):
            found = [clip for clip in clips if row.label in (clip.labels or ("",)) and clip.split == split]
            assert held == Held(len({clip.group for clip in found}), len(found))
        assert bool(row.reason) == (0 in (row.train.clips, row.dev.clips, row.test.clips))
        num_groups = row.train.groups + row.dev.groups + row.test.groups
        if row.reason and num_groups < 3:
            assert f"it has {num_groups} recording group" in row.reason
            assert row.reason.endswith("; 3 splits need 3")


def test_every_reason_is_given(make_clip: MakeClip) -> None:
    two = [make_clip(f"o{i}", group=f"o{i}", labels=("owl",), split="") for i in range(2)]
    (row,) = split_report(complete_splits(two), given=())
    assert row.reason == "class 'owl' has no clip in split test: it has 2 recording groups; 3 splits need 3"
    placed = [make_clip(f"w{i}", group=f"w{i}") for i in range(3)]
    (row,) = split_report(placed)
    assert row.reason == (
        "class 'wren' has no clip in split dev, test: it has 3 recording groups, and the given splits place 3 of them "
        "elsewhere"
    )
    plain = [clip._replace(labels=(), split="dev") for clip in placed]
    assert split_report(plain)[0].reason.startswith("clips without a class have no clip in split train, test: ")
    clips = [make_clip(f"{i}", group=f"{i}", labels=("a", "b")[: 1 + (i > 0)]) for i in range(3)]
    bound = [clip._replace(split=split) for clip, split in zip(clips, ("train", "train", "dev"), strict=True)]
    assert split_report(bound, given=())[0].reason == (
        "class 'a' has no clip in split test: it has 3 recording groups, and each that could move there holds a class "
        "that would lose a split"
    )


def test_a_label_is_in_all_splits_though_each_of_its_groups_holds_the_only_clip_of_another(make_clip: MakeClip) -> None:
    clips = [make_clip(f"{i}", group=f"{i}", labels=("a", f"rare{i}"), split="") for i in range(3)]
    for seed in range(5):
        assert {clip.split for clip in complete_splits(clips, seed=seed)} == set(SPLITS)
