"""Training state and the writers of checkpoints: whole or absent, also when they are killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_base

from sonar.checkpoint import load_checkpoint, load_state, save_checkpoint, save_state

KILLED = """
import os, sys, torch
from pathlib import Path
from sonar import checkpoint, checkpoint_files
from sonar.model.encoder import BeatsEncoder, EncoderConfig
os.replace = Path.rename = lambda *arguments: os._exit(9)  # killed after writing, before the rename
config = EncoderConfig(num_layers=1, width=16, ffn_width=16, num_heads=2, patch_width=16, position_groups=2)
encoder = BeatsEncoder(config).initialise(torch.Generator())
folder = Path(sys.argv[1])
if sys.argv[2] == "folder":
    checkpoint.save_checkpoint(checkpoint.Checkpoint(encoder=encoder), folder / "run")
else:
    checkpoint.save_state({"step": 2}, folder / "state.pt")
"""


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_state_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    save_state({"step": 1}, tmp_path / "state.pt")
    for kind in ("folder", "state"):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), kind], check=False, timeout=50)
        assert done.returncode == 9
    assert not (tmp_path / "run").exists() and load_state(tmp_path / "state.pt") == {"step": 1}
    assert len(list(tmp_path.glob(".*.partial"))) == 2
    save_checkpoint(make_base(), tmp_path / "run")
    save_state({"step": 3}, tmp_path / "state.pt")
    assert not list(tmp_path.glob(".*.partial"))
    assert load_state(tmp_path / "state.pt") == {"step": 3} and load_checkpoint(tmp_path / "run").predictor is not None


def test_a_writer_leaves_the_unfinished_files_of_others_alone(tmp_path: Path) -> None:
    others = [tmp_path / name for name in (".state.pt.best.a1b2c3d4.partial", ".other.a1b2c3d4.partial")]
    own = tmp_path / ".state.pt.a1b2c3d4.partial"
    for path in (*others, own):
        path.touch()
    save_state({}, tmp_path / "state.pt")
    assert all(path.exists() for path in others) and not own.exists()


def test_training_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = {
        "step": 7, "rate": 1e-4, "name": "tokenizer", "done": False, "none": None, "betas": (0.9, 0.98),
        "moments": {0: {"exp": torch.randn(3)}}, "list": [1, "two", torch.tensor(3)],
        "rng": torch.Generator().manual_seed(3).get_state(),
    }  # fmt: skip
    save_state(state, tmp_path / "deep" / "state.pt")
    loaded = load_state(tmp_path / "deep" / "state.pt")
    assert loaded.keys() == state.keys() and loaded["betas"] == (0.9, 0.98) and loaded["done"] is False
    assert torch.equal(loaded["moments"][0]["exp"], state["moments"][0]["exp"])  # type: ignore[index]
    assert torch.equal(loaded["rng"], state["rng"])  # type: ignore[arg-type]


def test_state_that_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a set"):
        save_state({"a": [1, {2}]}, tmp_path / "state.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_state_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state({"step": 1}, tmp_path / "state.pt")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state({"step": 2}, tmp_path / "state.pt")
    assert load_state(tmp_path / "state.pt") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
