"""Shards without some of their clips: an index of its own over the same files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow.feather as feather

from sonar.data.manifest import manifest_hash
from sonar.data.shards import INDEX_FILE, QUARANTINE_FILE, SUMMARY_FILE, stratum_of
from sonar.data.stream import ClipStore
from sonar.files import whole_folder


def shards_without(folder: Path, left_out: Collection[str]) -> Path:
    """A folder of shards that names every clip of `folder` but those left out; no audio is copied.

    Args:
        folder: of shards; must stay where it is, beside the result.
        left_out: clip ids.

    Returns:
        The folder, `shards-HASH` of the clips that are left, which `ClipStore` opens; found if it is there already.

    Raises:
        ValueError: no clip is left.
    """
    store = ClipStore(folder)
    keep = np.asarray([clip.clip_id not in left_out for clip in store.clips])
    if not keep.any():
        raise ValueError(f"no clip of {folder} is left without {len(left_out)} clips that evaluation splits hold")
    clips = [clip for clip, kept in zip(store.clips, keep, strict=True) if kept]
    manifest = manifest_hash(clips)
    view = folder.with_name(f"shards-{manifest}")
    if view.exists():
        return view
    index = feather.read_table(folder / INDEX_FILE).filter(keep)
    files = [f"../{folder.name}/{name}" for name in index["file"].to_pylist()]
    index = index.set_column(index.schema.get_field_index("file"), "file", [files])
    strata = Counter(stratum_of(clip._asdict()) for clip in clips)
    summary = {"manifest": manifest, "num_clips": len(clips), "strata": dict(sorted(strata.items()))}
    with whole_folder(view) as partial:
        feather.write_feather(index, partial / INDEX_FILE)
        shutil.copyfile(folder / QUARANTINE_FILE, partial / QUARANTINE_FILE)
        (partial / SUMMARY_FILE).write_text(json.dumps(summary, indent=1))
    return view
