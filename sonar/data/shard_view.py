"""Shards without some of their clips: an index of its own over the same files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sonar.data.clip_table import ClipTable
from sonar.data.manifest import manifest_hash
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_summary import INDEX_FILE, LeftOut, read_summary, write_summary
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
    whole = read_summary(ShardFolder(folder))
    index = pa.ipc.open_file(pa.memory_map(str(folder / INDEX_FILE))).read_all()
    dropped = pc.is_in(index["clip_id"], value_set=pa.array(list(left_out), pa.string()))
    index = index.filter(pc.invert(dropped))
    if not len(index):
        raise ValueError(f"no clip of {folder} is left without {len(left_out)} clips that evaluation splits hold")
    manifest = manifest_hash(ClipTable(index))
    view = folder.with_name(f"shards-{manifest}")
    if view.exists():
        return view
    beside = f"../{folder.name}/"
    names = index["file"].unique().to_pylist()
    files = pc.binary_join_element_wise(pa.scalar(beside), index["file"], pa.scalar(""))
    index = index.set_column(index.schema.get_field_index("file"), "file", files)
    num_bad = {name: stratum.num_bad for name, stratum in whole.strata.items()}
    with whole_folder(view) as partial:
        hashed = {beside + name: whole.files[name] for name in names}
        write_summary(ShardFolder(partial), manifest, index, LeftOut(whole.quarantine, num_bad), hashed)
    return view
