"""Scores an encoder while it is trained: the points of its forgetting curve, and the candidates that it leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from sonar.checkpoint import Checkpoint, load_checkpoint
from sonar.config import to_dict
from sonar.data.stream import ClipStore
from sonar.evaluate.axis_intervals import AxisResamples
from sonar.evaluate.curve import CurvePoint, add_point, read_curve, summarise_curve
from sonar.evaluate.record import Evaluation
from sonar.evaluate.run import Change, Task, compare, evaluate_encoder, find_tasks
from sonar.experiment import TrialConfig
from sonar.model.encoder import BeatsEncoder
from sonar.provenance import provenance
from sonar.search.candidate_folders import Offer, between, read_offer, write_offer
from sonar.search.prepare import Prepared, read_baseline
from sonar.train.loop import StepReport

STAGE = "model"  # the only one that changes the encoder
CURVE_TERMS = ("plasticity", "forgetting_rate", "forgetting_worst")  # what a watched step shows beside its losses


class Watch:
    """The evaluations of one trial on the dev split; travels to any worker.

    Attributes:
        seconds: spent on evaluations by this process.
    """

    def __init__(self, config: TrialConfig, prepared: Prepared, folder: Path, *, keep_candidates: bool = False) -> None:
        """Of the trial in `folder`; `keep_candidates`: leave the encoder of every point there."""
        self._config, self._prepared, self._folder = config, prepared, folder.resolve()
        self._keep_candidates = keep_candidates
        self.seconds = 0.0

    def __call__(self, report: StepReport, models: Mapping[str, nn.Module]) -> dict[str, float]:
        """Score the encoder after the steps of the model stage that `evaluation.every` divides, but the last.

        After the last step the trial itself scores it.

        Returns:
            What is to be shown with the step; nothing where it is not watched.
        """
        every = self._config.evaluation.every
        if report.stage != STAGE or not every or report.step % every or report.step == report.num_steps:
            return {}
        encoder = models["encoder"]
        assert isinstance(encoder, BeatsEncoder)
        was_training = encoder.training
        evaluation, change = self.score(encoder)
        if self._keep_candidates:
            made_by = self.made_by() | {"step": report.step}
            offer = Offer(report.step, 1.0, self.judge(evaluation, change))
            write_offer(offer, self._folder, evaluation, Checkpoint(encoder=encoder, provenance=made_by))
        encoder.train(was_training)
        return self._keep(report.stage, report.step, evaluation, change)

    @cached_property
    def _tasks(self) -> list[Task]:
        return find_tasks(ClipStore(self._prepared.new_shards), ClipStore(self._prepared.prior_shards))

    @cached_property
    def _resamples(self) -> AxisResamples:
        return AxisResamples(self._baseline)

    @cached_property
    def _baseline(self) -> Evaluation:
        return read_baseline(self._prepared.baseline)

    def score(self, encoder: BeatsEncoder) -> tuple[Evaluation, Change]:
        """Scores of all tasks, and their change against the base; the encoder is left in eval mode."""
        began = time.perf_counter()
        evaluation = evaluate_encoder(encoder, self._tasks, self._config.probe)
        change = compare(self._baseline, evaluation)
        self.seconds += time.perf_counter() - began
        return evaluation, change

    def score_end(self, encoder: BeatsEncoder, step: int) -> tuple[Evaluation, Change]:
        """As `score`, of the encoder that a trial leaves; after no step it is the base, whose scores are known."""
        return self.score(encoder) if step else (self._baseline, compare(self._baseline, self._baseline))

    def made_by(self) -> dict[str, Any]:
        """What a checkpoint of the trial says of itself: the trial, its base by its content hash, and the program."""
        return {"trial": to_dict(self._config), "base": Path(self._prepared.base).name, "made_by": provenance()}

    def interpolate(self, encoder: BeatsEncoder, step: int) -> dict[str, float]:
        """Score the line from the base to an encoder at `evaluation.alphas`; each place is a candidate without weights.

        Args:
            encoder: that the trial leaves.
            step: steps that its model stage had; after none the whole line is the base, and nothing is scored.

        Returns:
            Both axes at every alpha.
        """
        shown: dict[str, float] = {}
        alphas = self._config.evaluation.alphas if step else ()
        base = load_checkpoint(self._prepared.base).encoder if alphas else None
        for alpha in alphas:
            assert base is not None
            offer = read_offer(Offer(step, alpha, {}).folder(self._folder))
            if offer is None:
                evaluation, change = self.score(between(base, encoder, alpha))
                offer = Offer(step, alpha, self.judge(evaluation, change))
                write_offer(offer, self._folder, evaluation)
            shown |= {f"alpha-{alpha:g}/{name}": offer.metrics[name] for name in CURVE_TERMS}
        return shown

    def judge(self, evaluation: Evaluation, change: Change) -> dict[str, float]:
        """The numbers of a candidate: its change against the base, and the intervals of both axes."""
        began = time.perf_counter()
        numbers = change.metrics() | self._resamples.intervals(evaluation).metrics()
        self.seconds += time.perf_counter() - began
        return numbers

    def end(self, step: int, evaluation: Evaluation, change: Change) -> dict[str, float]:
        """Write the last point and say what the curve says; nothing where only the end was asked for.

        Args:
            step: steps that the model stage had.
            evaluation: of the encoder that the trial leaves.
            change: of it.
        """
        if not self._config.evaluation.every:
            return {}
        last = self._keep("end", step, evaluation, change)
        summary = summarise_curve(read_curve(self._folder))
        # The series of the watched steps ends with what the trial ends with.
        shown = {f"{STAGE}/{name}": value for name, value in last.items()}
        return shown | {f"curve/{name}": float(value) for name, value in summary._asdict().items()}

    def _keep(self, stage: str, step: int, evaluation: Evaluation, change: Change) -> dict[str, float]:
        """Write a point, the first time behind that of the base, and return its numbers."""
        numbers = {name: value for name, value in change.metrics().items() if name in CURVE_TERMS}
        if not read_curve(self._folder):
            add_point(CurvePoint("base", 0, 0.0, 0.0, 0.0, _scores(self._baseline)), self._folder)
        add_point(CurvePoint(stage, step, **numbers, scores=_scores(evaluation)), self._folder)
        return numbers


def _scores(evaluation: Evaluation) -> dict[str, float]:
    return {result.name: result.score.score for result in evaluation.results}
