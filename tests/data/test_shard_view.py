"""A view of shards is the same shards without some clips."""

from pathlib import Path

import numpy as np
import pytest
from stores import write_store
from tiny import make_store

from sonar.data.manifest import manifest_hash
from sonar.data.shard_view import shards_without
from sonar.data.shards import write_shards
from sonar.data.stream import ClipStore


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_store("birds", 8, seconds=(0.5, 0.3), split=lambda row: "train" if row < 6 else "dev")
    folder = write_store(tmp_path_factory.mktemp("view") / "shards-whole", made)
    return folder


def test_the_clips_that_are_left_read_the_same_audio(shards: Path) -> None:
    whole = ClipStore(shards)
    view = ClipStore(shards_without(shards, {whole.clips[2].clip_id}))
    kept = [row for row in range(8) if row != 2]
    assert list(view.clips) == [whole.clips[row] for row in kept]
    for place, row in enumerate(kept):
        assert np.array_equal(view.waveform(place), whole.waveform(row))
    assert view.index(split="dev").tolist() == [5, 6]


def test_a_view_is_named_by_its_clips_and_found_again(shards: Path) -> None:
    whole = ClipStore(shards)
    left_out = {whole.clips[0].clip_id, whole.clips[7].clip_id}
    view = shards_without(shards, left_out)
    clips = [clip for clip in whole.clips if clip.clip_id not in left_out]
    assert view == shards.with_name(f"shards-{manifest_hash(clips)}") == shards_without(shards, left_out)
    strata = write_shards(clips, view).strata
    assert {name: stratum.num_clips for name, stratum in strata.items()} == {"birds-dev": 1, "birds-train": 5}


def test_a_view_of_a_view_reads_the_same_audio(shards: Path) -> None:
    whole = ClipStore(shards)
    first = shards_without(shards, {whole.clips[0].clip_id})
    second = ClipStore(shards_without(first, {whole.clips[1].clip_id}))
    assert np.array_equal(second.waveform(0), whole.waveform(2))


def test_a_view_of_nothing_is_refused(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"no clip of .* is left without 8 clips that evaluation splits hold"):
        shards_without(shards, {clip.clip_id for clip in ClipStore(shards).clips})
