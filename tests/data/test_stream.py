from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.audio import AudioError, decode_audio
from sonar.data.batch import Batch
from sonar.data.clip_table import ClipTable
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.stream import ClipStore, MixedStream, Source, StreamConfig, batch_clips, file_batches

RATE = 16_000
CONFIG = StreamConfig(batch_size=4, clip_seconds=0.001, replay_ratio=0.5, seed=0)
PLAIN = Clip("", "", 0.0, 1.0, RATE, 1, "c", "bio", (), "", "train", "0" * 64)


class MemoryStore(ClipStore):
    """Clips whose sample i is 100 * row + i, so that a crop shows where it was taken."""

    def __init__(self, name: str, lengths: list[int]) -> None:
        self.clips = ClipTable.from_clips(PLAIN._replace(clip_id=f"{name}{row}") for row in range(len(lengths)))
        self.num_samples = np.asarray(lengths, dtype=np.int64)

    def waveform(self, row: int, begin: int = 0, num_samples: int | None = None) -> np.ndarray:
        whole = 100 * row + np.arange(self.num_samples[row], dtype=np.float32)
        return whole[begin:][:num_samples]


def source(name: str, count: int, length: int = 16) -> Source:
    return Source(MemoryStore(name, [length] * count), np.arange(count))


def mixed(new: int, prior: int, config: StreamConfig = CONFIG, **worker: int) -> MixedStream:
    return MixedStream(source("n", new), source("p", prior), config, **worker)


@given(
    ratio=st.floats(0, 1),
    size=st.integers(1, 40),
    step=st.integers(0, 50),
    new=st.integers(1, 50),
    prior=st.integers(1, 50),
    worker=st.sampled_from([(0, 1), (0, 3), (2, 3)]),
)
def test_every_batch_of_every_worker_has_exactly_the_ratio_whatever_the_sizes(
    ratio: float, size: int, step: int, new: int, prior: int, worker: tuple[int, int]
) -> None:
    config = replace(CONFIG, replay_ratio=ratio, batch_size=size)
    rank, world_size = worker
    if 0 < ratio < 1 and round(ratio * size) in (0, size):
        with pytest.raises(ValueError, match="rounds to"):
            mixed(new, prior, config)
        return
    batch = mixed(new, prior, config, rank=rank, world_size=world_size).batch(step)
    assert batch.is_replay.sum() == round(ratio * size)
    assert [clip_id[0] == "p" for clip_id in batch.clip_ids] == batch.is_replay.tolist()


@given(new=st.integers(1, 40), prior=st.integers(1, 40), world_size=st.integers(2, 4), seed=st.integers(0, 9))
def test_workers_are_disjoint_until_a_side_is_exhausted(new: int, prior: int, world_size: int, seed: int) -> None:
    config = replace(CONFIG, seed=seed)
    streams = [mixed(new, prior, config, rank=rank, world_size=world_size) for rank in range(world_size)]
    for side, size in (("n", new), ("p", prior)):
        whole_steps = size // (2 * world_size)  # two clips of each side in a batch of four
        taken = [c for stream in streams for s in range(whole_steps) for c in stream.batch(s).clip_ids if c[0] == side]
        assert len(set(taken)) == len(taken) == 2 * world_size * whole_steps


@given(seed=st.integers(0, 99), step=st.integers(0, 30), lengths=st.lists(st.integers(1, 200), min_size=4, max_size=9))
def test_a_stream_that_starts_at_any_step_gives_what_it_would_have_given(
    seed: int, step: int, lengths: list[int]
) -> None:
    config = StreamConfig(batch_size=3, clip_seconds=50 / RATE, replay_ratio=1 / 3, seed=seed)

    def stream() -> MixedStream:
        new, prior = MemoryStore("n", lengths), MemoryStore("p", lengths[::-1])
        return MixedStream(Source(new, np.arange(len(lengths))), Source(prior, np.arange(3)), config)

    ran = stream()
    for earlier in range(step):
        ran.batch(earlier)
    left, right = ran.batch(step), stream().batch(step)
    assert left.clip_ids == right.clip_ids
    assert torch.equal(left.waveform, right.waveform) and torch.equal(left.padding, right.padding)


def test_crops_follow_the_seed_the_epoch_and_the_clip_alone() -> None:
    store = MemoryStore("n", [10_000] * 5)
    nothing, rows = Source(store, np.arange(0)), np.arange(5)

    def begins(seed: int, batch_size: int, epochs: int) -> list[dict[str, float]]:
        config = StreamConfig(batch_size=batch_size, clip_seconds=50 / RATE, replay_ratio=0.0, seed=seed)
        stream = MixedStream(Source(store, rows), nothing, config)
        taken = [
            (name, wave[0].item() - 100 * int(name[1:]))
            for step in range(epochs * 5 // batch_size)
            for name, wave in zip(stream.batch(step).clip_ids, stream.batch(step).waveform, strict=True)
        ]
        return [dict(taken[epoch * 5 : epoch * 5 + 5]) for epoch in range(epochs)]

    one = begins(0, 5, 2)
    assert begins(0, 1, 2) == one  # the order of a batch does not matter
    assert one[0] != one[1] and begins(1, 5, 2)[0] != one[0]
    assert all(0 <= begin <= 9_950 for epoch in one for begin in epoch.values())


@pytest.mark.parametrize(("new_s", "prior_s", "padded_s"), [(0.7, 0.4, 1.0), (0.4, 0.5, 0.5), (0.3, 4.0, 2.0)])
def test_clips_are_padded_to_the_longest_of_the_mixture_and_no_further(
    new_s: float, prior_s: float, padded_s: float
) -> None:
    config = StreamConfig(batch_size=4, clip_seconds=2.0, replay_ratio=0.5, seed=0)
    sides = [MemoryStore(name, [100, 200, round(s * RATE)]) for name, s in (("n", new_s), ("p", prior_s))]
    stream = MixedStream(*(Source(side, np.arange(3)) for side in sides), config)
    assert {stream.batch(step).waveform.shape for step in range(5)} == {(4, padded_s * RATE)}


@given(
    new=st.integers(1, 23),
    prior=st.integers(1, 23),
    world_size=st.integers(1, 4),
    step=st.integers(0, 20),
    ratio=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_workers_together_take_what_one_worker_would(
    new: int, prior: int, world_size: int, step: int, ratio: float
) -> None:
    config = replace(CONFIG, replay_ratio=ratio, clip_seconds=0.0005)
    parts = [mixed(new, prior, config, rank=rank, world_size=world_size).batch(step) for rank in range(world_size)]
    whole = mixed(new, prior, replace(config, batch_size=4 * world_size)).batch(step)

    def rows(batches: list[Batch]) -> Counter[tuple[object, ...]]:
        return Counter(
            (clip_id, tuple(wave.tolist()))
            for batch in batches
            for clip_id, wave in zip(batch.clip_ids, batch.waveform, strict=True)
        )

    assert rows(parts) == rows([whole])


@given(new=st.integers(1, 30), prior=st.integers(1, 30), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_no_clip_comes_twice_before_its_side_is_exhausted(new: int, prior: int, seed: int) -> None:
    stream = mixed(new, prior, replace(CONFIG, seed=seed))
    ids = [clip_id for step in range(40) for clip_id in stream.batch(step).clip_ids]
    for side, size in (("n", new), ("p", prior)):
        of_side = [clip_id for clip_id in ids if clip_id[0] == side]
        for begin in range(0, len(of_side) - size + 1, size):
            assert len(set(of_side[begin : begin + size])) == size


def test_a_batch_depends_on_nothing_but_seed_step_and_rank() -> None:
    ahead, fresh = mixed(9, 5), mixed(9, 5)
    for step in range(6):
        ahead.batch(step)
    assert torch.equal(ahead.batch(3).waveform, fresh.batch(3).waveform)
    assert ahead.batch(3).clip_ids == fresh.batch(3).clip_ids
    other = mixed(9, 5, replace(CONFIG, seed=1))
    assert [other.batch(step).clip_ids for step in range(3)] != [fresh.batch(step).clip_ids for step in range(3)]


def test_a_long_clip_is_cropped_elsewhere_in_every_epoch_and_a_short_one_padded() -> None:
    store = MemoryStore("n", [1_000, 10])
    config = StreamConfig(batch_size=2, clip_seconds=50 / RATE, replay_ratio=0.0, seed=0)
    stream = MixedStream(Source(store, np.arange(2)), Source(store, np.arange(0)), config)
    begins = set()
    for step in range(20):
        batch = stream.batch(step)
        crop, short = sorted(range(2), key=lambda row: batch.clip_ids[row])
        begin = batch.waveform[crop, 0].item()
        assert batch.waveform[crop].tolist() == (begin + np.arange(50)).tolist()
        assert not batch.padding[crop].any()
        assert batch.waveform[short].tolist() == (100 + np.arange(10)).tolist() + [0.0] * 40
        assert batch.padding[short].tolist() == [False] * 10 + [True] * 40
        begins.add(begin)
    assert len(begins) > 15


def test_only_a_clip_that_comes_whole_has_a_key_and_it_names_its_samples() -> None:
    def keys(seed: int = 0, clip_seconds: float = 0.001, **changes: object) -> dict[str, str | None]:
        """Of an epoch of clips of which the second has 20 samples, and a crop 16."""
        new = MemoryStore("n", [16, 20, 9, 12])
        new.clips = ClipTable.from_clips(clip._replace(**changes) for clip in new.clips)
        config = replace(CONFIG, replay_ratio=0.0, seed=seed, clip_seconds=clip_seconds)
        batch = MixedStream(Source(new, np.arange(4)), source("p", 0), config).batch(0)
        return dict(zip(batch.clip_ids, batch.keys, strict=True))

    found = keys()
    assert {name: key is None for name, key in found.items()} == {"n0": False, "n1": True, "n2": False, "n3": False}
    assert found == keys(seed=1)  # in every epoch, batch and run
    longer = keys(clip_seconds=0.00125)
    assert None not in longer.values()
    others = (keys(sha256="1" * 64), keys(start_s=0.5), keys(duration_s=2.0), longer)
    assert len({key for one in (found, *others) for key in one.values() if key is not None}) == 4 * 3 + 4


def test_only_the_rows_of_a_source_are_drawn() -> None:
    store = MemoryStore("n", [16] * 10)
    stream = MixedStream(Source(store, np.array([2, 5, 7])), source("p", 2), CONFIG)
    drawn = {clip_id for step in range(6) for clip_id in stream.batch(step).clip_ids if clip_id[0] == "n"}
    assert drawn == {"n2", "n5", "n7"}


@pytest.mark.parametrize(
    ("ratio", "world_size", "steps"), [(0.5, 1, 5), (0.5, 2, 3), (0.0, 1, 3), (0.75, 1, 9), (1.0, 1, 2)]
)
def test_an_epoch_is_over_when_every_new_clip_was_seen(ratio: float, world_size: int, steps: int) -> None:
    config = replace(CONFIG, replay_ratio=ratio)
    streams = [mixed(9, 6, config, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert streams[0].steps_per_epoch == steps
    side, size = ("p", 6) if ratio == 1 else ("n", 9)
    for count, complete in ((steps, True), (steps - 1, False)):
        seen = {c for stream in streams for step in range(count) for c in stream.batch(step).clip_ids if c[0] == side}
        assert (len(seen) == size) is complete


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay_ratio": 1.5}, "replay_ratio is 1.5; it must lie in"),
        ({"batch_size": 0}, "must be positive"),
        ({"clip_seconds": 0.0}, "must be positive"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


def test_a_side_without_clips_is_refused_only_where_it_is_needed() -> None:
    with pytest.raises(ValueError, match="there are no prior clips; give some, or set replay_ratio to 0"):
        mixed(4, 0)
    with pytest.raises(ValueError, match="there are no new clips; give some, or set replay_ratio to 1"):
        mixed(0, 4)
    assert not mixed(4, 0, replace(CONFIG, replay_ratio=0.0)).batch(0).is_replay.any()
    assert mixed(0, 4, replace(CONFIG, replay_ratio=1.0)).batch(0).is_replay.all()


def test_the_smallest_batch_that_an_error_names_is_enough() -> None:
    with pytest.raises(ValueError, match="use batches of more than 5 clips per worker, or set the ratio to 0"):
        mixed(4, 4, replace(CONFIG, replay_ratio=0.1))
    assert mixed(4, 4, replace(CONFIG, replay_ratio=0.1, batch_size=6)).batch(0).is_replay.sum() == 1


def test_evaluation_takes_every_clip_once_around_its_middle_and_says_where_it_stood() -> None:
    lengths = [3_000 + 977 * row for row in range(70)]
    index = np.arange(69, -1, -1)
    buckets = list(batch_clips(MemoryStore("n", lengths), index, 2.0))
    assert sorted(np.concatenate([bucket.positions for bucket in buckets]).tolist()) == list(range(70))
    for batch, positions in buckets:
        assert batch.clip_ids == tuple(f"n{row}" for row in index[positions])
        for row, wave, padding in zip(index[positions], batch.waveform, batch.padding, strict=True):
            kept = min(lengths[row], 2 * RATE)
            assert len(wave) == min(2 * RATE, -(-lengths[row] // 8_000) * 8_000)  # whatever its neighbours are
            assert wave[0] == 100 * row + (lengths[row] - kept) // 2
            assert padding.tolist() == [False] * kept + [True] * (len(wave) - kept)


def test_files_give_the_batches_that_their_shards_would(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    lengths = [0.3, 0.7, 0.8, 1.4]
    for number, seconds in enumerate(lengths):
        write_audio(f"corpus/{number}.wav", seconds=seconds)
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    for batch, positions in file_batches(clips, 1.0, workers=2):
        for wave, padding, position in zip(batch.waveform, batch.padding, positions, strict=True):
            whole = decode_audio(clips[position].path)
            begin = max(0, (len(whole) - RATE) // 2)
            assert np.array_equal(wave[~padding].numpy(), whole[begin : begin + RATE])


def test_a_file_that_cannot_be_decoded_stops_the_batches_and_says_why(
    tmp_path: Path, write_audio: Callable[..., Path]
) -> None:
    for number in range(3):
        write_audio(f"corpus/{number}.wav")
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    Path(clips[1].path).write_bytes(b"no audio")
    with pytest.raises(AudioError, match="cannot be decoded"):
        list(file_batches(clips, 1.0, workers=1))
