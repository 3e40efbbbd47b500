"""What a driver does with candidates: take those that trials leave, give up those off the front, free the disk.

The journal says so first and the folder goes then. A driver that dies between the two leaves a folder too many, never
one too few, and the next one removes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from sonar.evaluate.record import FOLDER as EVALUATION
from sonar.search.candidate_folders import Offer, read_offers, remove
from sonar.search.candidates import DIRECTIONS, claimed_checkpoints, to_discard
from sonar.search.journal import Journal
from sonar.search.records import CandidateKey
from sonar.search.repeats import REPEATS

REMAINS = ("state.pt", "train", "adapted")  # of a trial, and of one of several workers


def take_offers(journal: Journal, trial_id: str, trial: Path) -> None:
    """Record what a trial has left since it was last looked at; one that is not finite is no candidate.

    Args:
        journal: of the sweep.
        trial_id: of a trial that has not ended.
        trial: its folder.
    """
    for offer in read_offers(trial):
        if CandidateKey(trial_id, offer.step, offer.alpha) in journal.state.candidates:
            continue
        if not all(math.isfinite(offer.metrics.get(name, math.nan)) for name in DIRECTIONS):
            continue
        metrics = {name: value for name, value in offer.metrics.items() if math.isfinite(value)}
        checkpoint = str(offer.checkpoint(trial))
        journal.append(
            "candidate", trial_id=trial_id, step=offer.step, alpha=offer.alpha, metrics=metrics, checkpoint=checkpoint
        )


class Retention:
    """Keeps the checkpoints of one sweep that can still be picked, and no others."""

    def __init__(self, journal: Journal, folder: Path, *, keep_all: bool = False) -> None:
        """Of the sweep in `folder`; with `keep_all` nothing but repeats is given up from now on."""
        self._journal, self._trials, self._keep_all = journal, folder.resolve() / "trials", keep_all
        self._seen: tuple[int, int] | None = None
        self._ended: set[str] = set()

    def clean(self) -> None:
        """Remove what an earlier driver gave up and left on the disk, then `update`."""
        candidates = self._journal.state.candidates.values()
        self._free([candidate.key for candidate in candidates if candidate.discarded is not None])
        self.update()

    def update(self) -> None:
        """Give up what has left the front, in the journal and then on the disk; cheap where nothing has happened."""
        state = self._journal.state
        ended = {trial_id for trial_id, record in state.trials.items() if record.is_finished}
        if self._seen == (len(state.candidates), len(ended)):
            return
        discards = [d for d in to_discard(state) if not self._keep_all or state.trials[d.key.trial_id].kind in REPEATS]
        for key, reason in discards:
            self._journal.append("discarded", **key._asdict(), reason=reason)
        self._free([key for key, _ in discards])
        for trial_id in ended - self._ended:
            self._remove_remains(trial_id)
        self._seen, self._ended = (len(state.candidates), len(ended)), ended

    def _free(self, keys: Sequence[CandidateKey]) -> None:
        """Remove the weights of discarded candidates, unless another one needs them, and their predictions."""
        state = self._journal.state
        # By place and not by name: a sweep that was moved or linked may know one folder under two names.
        claimed = {Path(name).resolve() for name in claimed_checkpoints(state)} if keys else set()
        for key in keys:
            checkpoint = state.candidates[key].checkpoint
            if checkpoint and Path(checkpoint).resolve() not in claimed:
                self._remove(Path(checkpoint))
            if state.trials[key.trial_id].kind not in REPEATS:  # those say how the candidate that they repeat stands
                self._remove(Offer(key.step, key.alpha, {}).folder(self._trials / key.trial_id) / EVALUATION)

    def _remove_remains(self, trial_id: str) -> None:
        """Remove what an ended trial would have been resumed from, and what it left that was never recorded."""
        trial, candidates = self._trials / trial_id, self._journal.state.candidates
        for name in REMAINS:
            self._remove(trial / name)
        for offer in read_offers(trial):
            if CandidateKey(trial_id, offer.step, offer.alpha) not in candidates:
                self._remove(offer.folder(trial))

    def _remove(self, path: Path) -> None:
        """Remove what lies among the trials; a path that leads elsewhere is nothing of ours."""
        if self._trials in path.resolve().parents:
            remove(path)
