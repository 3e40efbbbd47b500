"""A model on a suite: its audio prepared, every task scored once, every look at a split recorded."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from sonar.checkpoint import load_checkpoint
from sonar.config import config_hash, to_dict
from sonar.evaluate.bootstrap import Interval, score_interval
from sonar.evaluate.embed_store import CLIPS_PER_ACTOR, fill_cache
from sonar.evaluate.features import FeatureCache
from sonar.evaluate.finetune import finetune_task
from sonar.evaluate.ledger import Use, earlier_tests, now, read_uses, record_use
from sonar.evaluate.metrics import forgetting_rate
from sonar.evaluate.predictions import read_predictions, write_predictions
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.record import Evaluation, Role, TaskResult
from sonar.evaluate.run import Change, Task, compare, evaluate_task, labelled_splits, splits_for
from sonar.evaluate.scores import Metric, score_predictions
from sonar.evaluate.suite import FoundSuite, check_unseen
from sonar.model.encoder import BeatsEncoder
from sonar.search.base import content_hash
from sonar.search.mixture import MIXTURE_FILE
from sonar.search.prepare import cache_of
from sonar.search.progress import Say
from sonar.search.suite_audio import SuiteTask, prepare_suite
from sonar.train.stages import local_worker

SPREAD_FROM = 2 * CLIPS_PER_ACTOR  # clips: from here on a second actor has work
ROOT_VARIABLE = "SONAR_AUDIO"


class Request(NamedTuple):
    """What is to be scored.

    Attributes:
        model: checkpoint folder, folder of a trial, or BEATs file.
        suite: what it is scored on.
        root: folder that the suite's corpora lie below.
        split: dev, or test in a final report.
        final: that this is a final report.
        against: the same of the model that it is compared with; None: no comparison.
    """

    model: Path
    suite: FoundSuite
    root: Path
    split: str = "dev"
    final: bool = False
    against: Path | None = None


class Row(NamedTuple):
    """One task of a report: scores and interval in percent.

    Attributes:
        name: of the task.
        role: target, prior or control.
        metric: of the score.
        score: of the model.
        interval: of it, 95 % over recordings, or over clips where they are all of a single one.
        recordings: that were scored.
        base: score of the model that it is compared with.
        change: gain over that score, percent of it.
        seconds: that scoring the model took; next to nothing where its predictions were in the cache.
    """

    name: str
    role: Role
    metric: Metric
    score: float
    interval: Interval
    recordings: int
    base: float | None
    change: float | None
    seconds: float


class Report(NamedTuple):
    """A model on a suite.

    Attributes:
        checkpoint: 12 hex digits of its content.
        suite_hash: of the suite's tasks and protocol.
        rows: one a task.
        change: against the model compared with.
        evaluation: what was scored, with predictions.
        earlier_tests: how often each checkpoint was scored on this suite's test split before.
    """

    checkpoint: str
    suite_hash: str
    rows: list[Row]
    change: Change | None
    evaluation: Evaluation
    earlier_tests: Counter[str]


def find_root(given: Path | None, suite: FoundSuite, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a suite's corpora lie: as given, in SONAR_AUDIO, or beside the task file.

    Raises:
        ValueError: a packaged suite without either.
    """
    named = given or (Path(environ[ROOT_VARIABLE]) if environ.get(ROOT_VARIABLE) else suite.folder)
    if named is None:
        raise ValueError(f"suite {suite.suite.name} names corpora below a root: give --root, or set {ROOT_VARIABLE}")
    return named


def evaluate_suite(request: Request, storage: Path, say: Say) -> Report:
    """Score a model, and one that it is compared with, on every task of a suite.

    Args:
        request: what to score.
        storage: `cache` below it keeps shards and predictions, `evaluations.jsonl` who looked at what.
        say: hears one line per thing done.

    Raises:
        FileNotFoundError: a corpus or model is not there.
        ValueError: the test split outside a final report, a control corpus that is trained on, a model that heard what
            it would be scored on, or a task that cannot be scored.
    """
    suite = request.suite.suite
    _check_request(request)
    models = [_Model(path, cache_of(storage)) for path in (request.model, request.against) if path is not None]
    prepared = prepare_suite(suite, request.root, cache_of(storage), say)
    for model in models:
        check_unseen(prepared.sides, model.trained_on())
    suite_hash = config_hash(to_dict(suite))
    earlier = earlier_tests(read_uses(storage), suite.name, suite_hash)
    for model in models:
        purpose = "final report" if request.final else "evaluate"
        record_use(Use(now(), model.checkpoint, suite.name, suite_hash, request.split, purpose), storage)
    scored = [_score(model, prepared.tasks, request.split, cache_of(storage), say) for model in models]
    change = compare(scored[1].evaluation, scored[0].evaluation) if len(scored) > 1 else None
    rows = list(_rows(scored))
    return Report(models[0].checkpoint, suite_hash, rows, change, scored[0].evaluation, earlier)


def _check_request(request: Request) -> None:
    suite = request.suite.suite
    if request.split not in ("dev", "test"):
        raise ValueError(f"split is {request.split!r}; a model is scored on dev, or on test in a final report")
    if (request.split == "test") != request.final:
        raise ValueError(
            "the test split is for the final report alone: give --split test and --final together once everything is "
            "chosen, and look at dev before"
        )
    for role in ("target", "prior"):
        if request.against is not None and not suite.of(role):
            raise ValueError(f"suite {suite.name} has no {role} task, so no change can be stated; leave --against out")


class _Model:
    """A model by its path."""

    def __init__(self, path: Path, cache: Path) -> None:
        self._cache = cache
        inside = path / "checkpoint"
        self.path = inside if inside.is_dir() else path
        self.checkpoint = content_hash([self.path])

    @cached_property
    def encoder(self) -> BeatsEncoder:
        return load_checkpoint(self.path).encoder.to(local_worker().device)

    @cached_property
    def features(self) -> FeatureCache:
        return FeatureCache(self.encoder, self._cache / "features")

    def trained_on(self) -> dict[str, set[str]]:
        """Files and recording groups of the clips that a trial trained on; of any other model nothing is known."""
        path = self.path.parent / MIXTURE_FILE
        if not path.is_file():
            return {"sha256": set(), "group": set()}
        table = pq.read_table(path, columns=["sha256", "group"])
        return {name: set(table[name].to_pylist()) for name in table.column_names}


class _Scored(NamedTuple):
    evaluation: Evaluation
    seconds: list[float]


def _score(model: _Model, tasks: Sequence[SuiteTask], split: str, cache: Path, say: Say) -> _Scored:
    results, seconds = [], []
    for one in tasks:
        began = time.perf_counter()
        results.append(_result(model, one, split, cache))
        seconds.append(time.perf_counter() - began)
        say(f"{model.path}: {one.task.name}: {results[-1].score.score:.1f} ({seconds[-1]:.1f} s)")
    return _Scored(Evaluation(tuple(results)), seconds)


def _result(model: _Model, suite_task: SuiteTask, split: str, cache: Path) -> TaskResult:
    """Of one task; its predictions are kept by what they were computed from."""
    task, probe, finetune = suite_task
    protocol = {"probe": to_dict(probe)} if finetune is None else {"finetune": to_dict(finetune)}
    made_of = {"checkpoint": model.checkpoint, "shards": task.store.folder.name, "split": split, **protocol}
    path = cache / "predictions" / f"{config_hash(made_of)}.npz"
    if not path.exists():
        if finetune is None:
            _spread(model, task, probe, split)
            result = evaluate_task(model.features, task, probe, split)
        else:
            result = finetune_task(model.encoder, task, finetune, split)
        write_predictions(result.predictions, path)
        return result
    predictions = read_predictions(path)
    return TaskResult(task.name, task.role, task.metric, score_predictions(predictions, task.metric), predictions)


def _spread(model: _Model, task: Task, probe: ProbeConfig, split: str) -> None:
    """Embed large splits by the whole cluster. How large does not hang on the cluster, so that scores do not either."""
    if probe.probe == "attentive":  # it reads patches, which are too large to travel
        return
    for found in labelled_splits(task, splits_for(split)).values():
        if len(found.rows) >= SPREAD_FROM:
            fill_cache(model.features, model.path, task.store, found.rows, probe.clip_seconds)


def _rows(scored: Sequence[_Scored]) -> Iterator[Row]:
    for number, (result, seconds) in enumerate(zip(scored[0].evaluation.results, scored[0].seconds, strict=True)):
        score, base = result.score.score, None
        if len(scored) > 1:
            base = scored[1].evaluation.results[number].score.score
        yield Row(
            name=result.name,
            role=result.role,
            metric=result.metric,
            score=score,
            interval=score_interval(result.predictions, result.metric).interval,
            recordings=len(set(result.predictions.groups)),
            base=base,
            change=None if base is None else 0.0 - forgetting_rate(base, score),
            seconds=seconds,
        )
