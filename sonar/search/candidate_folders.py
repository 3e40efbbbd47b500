"""What a trial leaves of every encoder that it scored: a folder each, whole or absent.

`candidates/step-000040/` holds `candidate.json`, `evaluation/dev` and `checkpoint/`, so that it can be compared and
exported like a trial; `candidates/step-000120-alpha-0.5/` holds no weights: they follow from the base and from the
checkpoint that the trial ends with. The driver finds what is new there; a worker that dies loses none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sonar.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sonar.evaluate.record import Evaluation, split_folder, write_evaluation
from sonar.files import whole_folder
from sonar.model.encoder import BeatsEncoder
from sonar.model.interpolation import interpolated
from sonar.search.records import CandidateKey, TrialRecord

FOLDER, CANDIDATE_FILE, CHECKPOINT = "candidates", "candidate.json", "checkpoint"


class Offer(NamedTuple):
    """A scored encoder, as it lies in the folder of its trial.

    Attributes:
        step: steps of the model stage that theta had.
        alpha: place on the line from the base (0) to theta (1).
        metrics: its change against the base.
    """

    step: int
    alpha: float
    metrics: dict[str, float]

    def folder(self, trial: Path) -> Path:
        """Of the candidate."""
        return trial / FOLDER / (f"step-{self.step:06d}" + ("" if self.alpha == 1 else f"-alpha-{self.alpha:g}"))

    def checkpoint(self, trial: Path) -> Path:
        """Of theta: its own, or the one that the trial ends with."""
        return (self.folder(trial) if self.alpha == 1 else trial) / CHECKPOINT


def write_offer(offer: Offer, trial: Path, evaluation: Evaluation, checkpoint: Checkpoint | None = None) -> None:
    """Leave a candidate; one that is there stays, as a resumed trial makes the same one again."""
    folder = offer.folder(trial)
    if folder.exists():
        return
    with whole_folder(folder) as partial:
        write_evaluation(evaluation, split_folder(partial, "dev"))
        if checkpoint is not None:
            save_checkpoint(checkpoint, partial / CHECKPOINT)
        (partial / CANDIDATE_FILE).write_text(json.dumps(offer._asdict()), encoding="utf-8")


def read_offer(folder: Path) -> Offer | None:
    """What lies in the folder of a candidate; None where there is none."""
    path = folder / CANDIDATE_FILE
    return Offer(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def read_offers(trial: Path) -> list[Offer]:
    """All of a trial, by step and alpha."""
    folders = (trial / FOLDER).glob("step-*")
    return sorted(offer for folder in folders if (offer := read_offer(folder)) is not None)


def predictions_of(trials: Path, record: TrialRecord, key: CandidateKey) -> Path:
    """Folder of what a candidate of a trial predicted on dev: the trial's own where it ended with that one."""
    trial = trials / key.trial_id
    return split_folder(trial if record.ends_with(key) else Offer(key.step, key.alpha, {}).folder(trial), "dev")


def remove(path: Path) -> None:
    """Delete a file or a folder; under its own name it is whole or absent at any time."""
    if path.is_file():
        path.unlink()
        return
    leaving = path.with_name(f".{path.name}.leaving")
    shutil.rmtree(leaving, ignore_errors=True)  # of a driver that died here
    if path.exists():
        path.rename(leaving)
        shutil.rmtree(leaving)


def between(base: BeatsEncoder, encoder: BeatsEncoder, alpha: float) -> BeatsEncoder:
    """The encoder at base + alpha (encoder - base), on the device of `encoder`, in eval mode; both stay as they are."""
    middle = BeatsEncoder(encoder.config).to(next(encoder.parameters()).device)
    middle.load_state_dict(interpolated(base.state_dict(), encoder.state_dict(), alpha))
    return middle.eval()


def load_candidate(base: Path, checkpoint: Path, alpha: float) -> Checkpoint:
    """A candidate's encoder, bit for bit as it was scored; raises as `load_checkpoint`.

    Args:
        base: folder of the base that the trial adapted.
        checkpoint: folder of theta.
        alpha: of the candidate.
    """
    end = load_checkpoint(checkpoint)
    made_by: Mapping[str, object] = end.provenance | {"alpha": alpha}
    if alpha == 1:
        return replace(end, provenance=dict(made_by))
    return Checkpoint(encoder=between(load_checkpoint(base).encoder, end.encoder, alpha), provenance=dict(made_by))


def find_base_of(sweep: Path, checkpoint: Path) -> Path:
    """Folder of the base that a checkpoint of a sweep was adapted from: `cache/` beside the sweep keeps it.

    Raises:
        FileNotFoundError: neither the checkpoint nor its base is there any more.
    """
    made = checkpoint / "provenance.json"
    if not made.is_file():
        raise FileNotFoundError(f"no checkpoint at {checkpoint}; it was deleted or moved")
    base = sweep.resolve().parent / "cache" / str(json.loads(made.read_text(encoding="utf-8"))["base"])
    if not base.is_dir():
        raise FileNotFoundError(f"no base at {base}; bring back the cache of the sweep's storage")
    return base
