"""What shares a file or a recording with an evaluation clip does not train."""

from pathlib import Path
from typing import Any

import numpy as np
from stores import write_store
from tiny import RATE, MemoryStore, make_store

from sonar.data.manifest import Clip
from sonar.data.near_duplicates import fingerprint, index_in_parts
from sonar.data.stream import ClipStore
from sonar.search.leakage import _matches, separate, without_near_duplicates

PLAIN = make_store("birds", 1).clips[0]


def clip(name: str, **values: Any) -> Clip:
    return PLAIN._replace(clip_id=name, group=name, sha256=name, **values)


def test_a_training_clip_whose_file_is_evaluated_in_any_corpus_is_left_out_and_counted() -> None:
    for split in ("dev", "test"):
        held_out = clip("a", split=split)
        kept = [[clip("b")._replace(sha256="a"), clip("c")], [clip("d")._replace(sha256="a"), held_out]]
        said: list[str] = []
        assert separate(kept, said.append) == [[clip("c")], [held_out]]
        assert said == ["2 training clips left out: their file is in an evaluation split"]


def test_a_training_clip_whose_recording_is_evaluated_in_any_corpus_is_left_out_and_counted() -> None:
    held_out = clip("a", split="test")
    said: list[str] = []
    assert separate([[held_out], [clip("b")._replace(group="a"), clip("c")]], said.append) == [[held_out], [clip("c")]]
    assert said == ["1 training clips left out: their recording group is in an evaluation split"]


def test_clips_apart_are_all_kept_in_silence() -> None:
    sides = [[clip("a"), clip("b", split="dev")], [clip("c"), clip("d", split="dev")._replace(group="b")]]
    said: list[str] = []
    assert separate(sides, said.append) == sides
    assert said == []


def test_without_evaluation_clips_there_is_nothing_to_compare(tmp_path: Path) -> None:
    """And no Ray is needed."""
    folder = write_store(tmp_path / "shards-a", make_store("birds", 2))
    said: list[str] = []
    assert without_near_duplicates([folder, folder], tmp_path, said.append) == [folder, folder]
    assert said == []


def test_a_match_names_its_place_among_the_clips_of_all_parts_of_the_index(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((5, RATE)).astype(np.float32)
    made = make_store("birds", 5, seconds=(1.0,))
    folder = write_store(tmp_path / "shards-a", MemoryStore(made.clips, list(0.1 * noise)))
    store = ClipStore(folder)
    parts = list(index_in_parts([fingerprint(store.waveform(row)) for row in range(5)], 200))
    begins, indices = zip(*parts, strict=True)
    assert len(parts) == 3
    found = _matches(str(folder), np.array([4, 0, 2]), begins, *indices)
    assert [(row, match.clip) for row, match in found] == [(4, 4), (0, 0), (2, 2)]
