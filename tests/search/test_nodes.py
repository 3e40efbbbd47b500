"""A storage that a node cannot see is refused before a trial lands there."""

from pathlib import Path

import pytest

from sonar.search import nodes


def cluster(monkeypatch: pytest.MonkeyPatch, seen_from: dict[str, bool]) -> None:
    alive = [{"Alive": True, "NodeID": name, "NodeManagerAddress": name} for name in seen_from]
    dead = {"Alive": False, "NodeID": "dead", "NodeManagerAddress": "dead"}
    monkeypatch.setattr(nodes.ray, "nodes", lambda: [*alive, dead])
    monkeypatch.setattr(nodes, "_look_from", lambda node, path: seen_from[node] and path.exists())
    monkeypatch.setattr(nodes.ray, "get", lambda looks, timeout: looks)


def test_a_node_that_does_not_see_the_storage_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster(monkeypatch, {"10.0.0.1": True, "10.0.0.2": False})
    with pytest.raises(ValueError, match=r"is not the same folder on 10\.0\.0\.2; give --storage"):
        nodes.check_storage_is_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_storage_that_every_node_sees_is_accepted_and_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster(monkeypatch, {"10.0.0.1": True, "10.0.0.2": True})
    nodes.check_storage_is_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_audio_that_a_node_does_not_see_is_named_before_it_is_all_quarantined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    audio = tmp_path / "a.wav"
    audio.touch()
    cluster(monkeypatch, {"10.0.0.1": True, "10.0.0.2": False})
    with pytest.raises(
        ValueError, match=r"a\.wav is not there on 10\.0\.0\.2; put the audio where every node of the cluster sees it"
    ):
        nodes.check_is_seen(audio)
    cluster(monkeypatch, {"10.0.0.1": True, "10.0.0.2": True})
    nodes.check_is_seen(audio)
