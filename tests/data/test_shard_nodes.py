"""A Ray of two nodes that share a folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from stores import write_clips

from sonar.data import shard_plan
from sonar.data.corpora import load_corpus
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_summary import read_summary
from sonar.data.shards import write_shards
from sonar.search.nodes import check_is_seen, check_storage_is_shared

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_nodes_that_share_a_folder_write_one_set_of_shards(
    tmp_path: Path, write_audio: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_plan, "_SMALLEST_PART", 14_000)
    for number in range(12):
        write_audio(f"corpus/{number:02d}.wav")
    clips = load_corpus(tmp_path / "corpus", domain="bio").clips
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(cluster.address, log_to_driver=False)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        check_storage_is_shared(tmp_path, option="--out")
        check_is_seen(Path(clips[0].path))
        summary = write_shards(clips, tmp_path / "out")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert summary == read_summary(ShardFolder(write_clips(tmp_path / "whole", clips)))
