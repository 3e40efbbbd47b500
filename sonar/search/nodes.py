"""What every node of the cluster must see before trials may land there."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CHECK_TIMEOUT_S = 120.0  # a node's first task starts a process


def check_storage_is_shared(storage: Path, option: str = "--storage") -> None:
    """Write a file into the storage and look for it from every node of the connected cluster.

    Args:
        storage: folder that all trials read and write; exists.
        option: that named it.

    Raises:
        ValueError: a node does not see the file; on such a node every trial would fail at once.
    """
    marker = storage.resolve() / f".seen-{uuid.uuid4().hex}"
    marker.touch()
    try:
        blind = _blind_nodes(marker)
    finally:
        marker.unlink()
    if blind:
        raise ValueError(
            f"{storage.resolve()} is not the same folder on {', '.join(blind)}; "
            f"give {option} a folder that every node of the cluster sees"
        )


def check_is_seen(path: Path) -> None:
    """Look for a file from every node of the connected cluster.

    Raises:
        ValueError: a node does not see it; all files like it would be quarantined there.
    """
    if path.exists() and (blind := _blind_nodes(path)):
        raise ValueError(
            f"{path} is not there on {', '.join(blind)}; put the audio where every node of the cluster sees it"
        )


def _blind_nodes(path: Path) -> list[str]:
    """Addresses of the nodes that do not see the path."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return []
    seen = ray.get([_look_from(node["NodeID"], path) for node in nodes], timeout=CHECK_TIMEOUT_S)
    return [node["NodeManagerAddress"] for node, is_seen in zip(nodes, seen, strict=True) if not is_seen]


def _look_from(node_id: str, path: Path) -> Any:
    """A reference to whether the node sees the path."""
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return ray.remote(os.path.exists).options(num_cpus=0, scheduling_strategy=here).remote(str(path))
