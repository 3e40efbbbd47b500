"""What every node of the cluster must see before trials may land there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CHECK_TIMEOUT_S = 120.0  # a node's first task starts a process


def check_storage_is_shared(storage: Path) -> None:
    """Write a file into the storage and look for it from every node of the connected cluster.

    Args:
        storage: folder that all trials read and write; exists.

    Raises:
        ValueError: a node does not see the file; on such a node every trial would fail at once.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    marker = storage.resolve() / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        looks = [_look_from(node["NodeID"], marker) for node in nodes]
        seen = ray.get(looks, timeout=CHECK_TIMEOUT_S)
    finally:
        marker.unlink()
    blind = [node["NodeManagerAddress"] for node, is_seen in zip(nodes, seen, strict=True) if not is_seen]
    if blind:
        raise ValueError(
            f"{storage.resolve()} is not the same folder on {', '.join(blind)}; "
            "give --storage a folder that every node of the cluster sees"
        )


def _look_from(node_id: str, path: Path) -> Any:
    """A reference to whether the node sees the path."""
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(os.path.exists).options(num_cpus=0, scheduling_strategy=here).remote(str(path))
