"""A pick between base and trained encoder becomes the encoder that was scored, bit for bit, in a file of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fake_sweep import SETTINGS, metrics
from tiny import make_base

from sonar.checkpoint import load_checkpoint, save_checkpoint
from sonar.model.interpolation import interpolated
from sonar.search.candidate_folders import load_candidate, remove
from sonar.search.journal import Journal
from sonar.search.run import JOURNAL_FILE


class Made(NamedTuple):
    """A storage with one sweep of one trial, which is best half-way from the base."""

    sweep: Path
    base: Path
    end: Path


@pytest.fixture
def made(tmp_path: Path) -> Made:
    sweep, base = tmp_path / "runs" / "bio", tmp_path / "runs" / "cache" / "base-0"
    end = sweep / "trials" / "t0" / "checkpoint"
    save_checkpoint(make_base(0), base)
    save_checkpoint(replace(make_base(1), provenance={"base": "base-0"}), end)
    with Journal(sweep / JOURNAL_FILE) as journal:
        journal.append("sweep_created", **SETTINGS)
        journal.append("suggested", trial_id="t0", kind="search", params={})
        journal.append("candidate", trial_id="t0", step=6, alpha=0.5, metrics=metrics(4.0, 1.0), checkpoint=str(end))
        journal.append("told", trial_id="t0", metrics=metrics(3.0, 2.0) | {"model/steps": 6}, checkpoint=str(end))
    return Made(sweep, base, end)


def test_the_picked_encoder_is_on_the_line_and_is_exported(made: Made, sonar: Any, tmp_path: Path) -> None:
    out_file = tmp_path / "picked.pt"
    status, out, _ = sonar("front", "pick", made.sweep, "--export", out_file)
    assert status == 0 and "at alpha 0.5 from the base" in out and f"wrote {out_file}" in out
    start, end = (load_checkpoint(folder).encoder.state_dict() for folder in (made.base, made.end))
    expected = interpolated(start, end, 0.5)
    exported = load_checkpoint(out_file).encoder.state_dict()
    loaded = load_candidate(made.base, made.end, 0.5)
    assert all(torch.equal(loaded.encoder.state_dict()[name], value) for name, value in expected.items())
    # The public layout keeps the position convolution as direction and size, so that its bits may differ.
    assert all(torch.allclose(exported[name], value, atol=1e-6) for name, value in expected.items())
    assert loaded.provenance == {"base": "base-0", "alpha": 0.5}


def test_the_end_itself_is_loaded_with_all_its_parts(made: Made) -> None:
    loaded, end = load_candidate(made.base, made.end, 1.0), load_checkpoint(made.end)
    ours, theirs = loaded.encoder.state_dict(), end.encoder.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert loaded.tokenizer is not None and loaded.provenance["alpha"] == 1


@pytest.mark.parametrize(("gone", "message"), [("end", "no checkpoint at "), ("base", "no base at ")])
def test_what_is_gone_is_named(made: Made, sonar: Any, tmp_path: Path, gone: str, message: str) -> None:
    remove(getattr(made, gone))
    status, _, err = sonar("front", "pick", made.sweep, "--export", tmp_path / "x.pt")
    assert status == 2 and f"{message}{getattr(made, gone)}" in err
    assert not (tmp_path / "x.pt").exists()
