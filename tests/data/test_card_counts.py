"""Counts, balance and lengths equal what a plain loop over the clips gives."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.data.card_counts import LENGTH_EDGES_S, Tally, count_clips, effective_number
from sonar.data.manifest import SPLITS, Clip

MakeClip = Callable[..., Clip]

_clips = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        st.sampled_from(SPLITS),
        st.integers(0, 4),
        st.floats(0.01, 500),
    ),
    min_size=1,
    max_size=30,
)


@given(rows=_clips)
def test_every_tally_is_that_of_a_loop(make_clip: MakeClip, rows: list[tuple]) -> None:
    clips = [
        make_clip(
            str(n), path=str(n), corpus=corpus, labels=tuple(labels), split=split, group=f"{g}", duration_s=seconds
        )
        for n, (corpus, labels, split, g, seconds) in enumerate(rows)
    ]
    counts = count_clips(clips, min_clips=3)
    for one in counts.classes:
        for split in SPLITS:
            found = [
                clip
                for clip in clips
                if clip.corpus == one.corpus and clip.split == split and one.label in (clip.labels or ("",))
            ]
            seconds = math.fsum(clip.duration_s for clip in found)
            assert one.splits[split] == Tally(
                clips=len(found), hours=seconds / 3600, groups=len({c.group for c in found})
            )
    for corpus in counts.corpora:
        members = [one for one in counts.classes if one.corpus == corpus.corpus and one.label]
        assert corpus.classes == len(members)
        assert corpus.few_clips == tuple(one.label for one in members if one.all.clips < 3)
        assert corpus.few_groups == tuple(one.label for one in members if one.all.groups < 3)
    assert counts.files == len(clips) == counts.all.clips == sum(one.all.clips for one in counts.corpora)
    assert sum(counts.lengths.clips) == sum(one.clips for one in counts.formats) == len(clips)
    torn = {c.group for c in clips for d in clips if c.group == d.group and c.split != d.split}
    assert {one.group for one in counts.torn_groups} == torn


@pytest.mark.parametrize("classes", [1, 2, 10, 527])
def test_even_classes_count_as_many_as_they_are(classes: int) -> None:
    assert effective_number([7] * classes) == pytest.approx(classes)


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_uneven_classes_count_less_and_order_does_not_matter(sizes: list[int]) -> None:
    effective = effective_number(sizes)
    assert 1 - 1e-9 <= effective <= len(sizes) + 1e-9
    assert effective == pytest.approx(effective_number(sizes[::-1]))


def test_a_class_that_holds_all_but_one_clip_counts_as_little_more_than_one() -> None:
    entropy = -(0.999 * math.log(0.999) + 0.001 * math.log(0.001))
    assert effective_number([999, 1]) == pytest.approx(math.exp(entropy))


def test_lengths_fall_between_their_edges(make_clip: MakeClip) -> None:
    clips = [make_clip(str(n), duration_s=seconds) for n, seconds in enumerate((0.1, 0.25, 1.0, 1.99, 4.0, 1000.0))]
    lengths = count_clips(clips, min_clips=1).lengths
    assert dict(zip(LENGTH_EDGES_S, lengths.clips, strict=True)) == dict.fromkeys(LENGTH_EDGES_S, 0) | {
        0.0: 1,
        0.25: 1,
        1.0: 2,
        3.0: 1,
        300.0: 1,
    }
    assert lengths.quantiles_s["0.0"] == 0.1 and lengths.quantiles_s["1.0"] == 1000.0
    assert lengths.quantiles_s["0.5"] == pytest.approx((1.0 + 1.99) / 2)


def test_formats_are_counted_the_most_frequent_first(make_clip: MakeClip) -> None:
    clips = [make_clip(str(n), sample_rate=44_100, channels=2) for n in range(3)] + [make_clip("m", sample_rate=8_000)]
    found = [(one.sample_rate, one.channels, one.clips) for one in count_clips(clips, min_clips=1).formats]
    assert found == [(44_100, 2, 3), (8_000, 1, 1)]


def test_a_corpus_without_labels_has_no_balance(make_clip: MakeClip) -> None:
    (corpus,) = count_clips([make_clip(labels=())], min_clips=1).corpora
    assert (corpus.classes, corpus.effective_classes, corpus.largest_to_smallest) == (0, None, None)
