"""Domains one after the other: each stage adapts what the stage before it left, and every task is scored after each."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sonar.checkpoint import load_checkpoint
from sonar.config import config_hash, to_dict
from sonar.data.stream import ClipStore
from sonar.evaluate.ledger import Use, now, record_use
from sonar.evaluate.metrics import ContinualMetrics, ScoreMatrix, continual_metrics, forgetting_rates
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.record import TASKS_FILE, read_evaluation, split_folder, write_evaluation
from sonar.evaluate.run import Task, evaluate_encoder, labelled_tasks
from sonar.experiment import BaseConfig, TrialConfig
from sonar.files import sha256_of, write_whole_text
from sonar.model.encoder import BeatsEncoder
from sonar.search.base import content_hash
from sonar.search.prepare import cache_of, load_domain, load_prior, prepare_shards, shard_corpora
from sonar.search.progress import Say, StepLines
from sonar.search.trial import run_trial
from sonar.train.stages import local_worker

BASE_STAGE = "base"  # stage 0 of the matrix
MATRIX_FILE, RESULT_FILE = "matrix.csv", "sequence.json"


class Domain(NamedTuple):
    """One domain of a sequence: its name, and its folder or manifest; None: the embedded corpus of that name."""

    name: str
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class SequencePlan:
    """Which domains, in which order, and what is rehearsed.

    Attributes:
        domains: at least two, of different names.
        prior: folders or manifests of the prior corpora; empty: the embedded prior corpus.
        replay_domains: rehearse training clips of the earlier domains as well as prior ones (inferred: no).
    """

    domains: tuple[Domain, ...]
    prior: tuple[str, ...] = ()
    replay_domains: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no sequence, and names that cannot name a folder."""
        names = [domain.name for domain in self.domains]
        if len(names) < 2:
            raise ValueError(f"a sequence has two domains or more, not {len(names)}; for one there is `sonar adapt`")
        if len(set(names)) < len(names):
            raise ValueError(f"the domains {', '.join(names)} must have different names")
        if BASE_STAGE in names:
            raise ValueError(f"no domain can be called {BASE_STAGE}, as stage 0 is; give another name")
        for name in names:
            if not re.fullmatch(r"[\w-]+", name):
                raise ValueError(f"domain name {name!r}: give letters, digits, _ and - only, as it names a folder")


class SequenceResult(NamedTuple):
    """What a sequence ends with.

    Attributes:
        matrix: R, in percent macro-F1; its stages are `base` and the domains, prior tasks come before targets.
        metrics: of it.
        checkpoints: folder of the adapted model of every domain.
    """

    matrix: ScoreMatrix
    metrics: ContinualMetrics
    checkpoints: dict[str, str]


class _Audio(NamedTuple):
    """Folders of shards: of every domain, and of what each stage rehearses, the first one the prior corpora alone."""

    domains: list[Path]
    replay: list[Path]


def run_sequence(config: TrialConfig, plan: SequencePlan, folder: Path, storage: Path, say: Say) -> SequenceResult:
    """Adapt to one domain after the other and judge every stage on all tasks.

    What is done is not done again: calling it anew continues where it was cut off.

    Args:
        config: of every stage; `base` is what the first one adapts.
        plan: the domains.
        folder: of the sequence; each stage gets a trial's folder in it, and `matrix.csv` and `sequence.json` stand
            beside them at the end.
        storage: for shared work; `cache` below it is filled.
        say: hears one line per thing done.

    Raises:
        FileNotFoundError: a corpus or checkpoint is not there.
        ValueError: two corpora of one name, a task that cannot be scored, or a stage's folder that holds a run of
            another configuration, audio or base.
        NonFiniteLossError: training diverged.
    """
    audio = _prepare_audio(plan, cache_of(storage), say)
    tasks, learned_at = _find_tasks(audio)
    scorer = _Scorer(tasks, config.probe, cache_of(storage))
    scores: list[dict[str, float]] = []
    random_init: dict[str, float] = {}
    checkpoints: dict[str, str] = {}
    base = config.base
    for stage, domain in enumerate(plan.domains):
        shards = (audio.domains[stage], audio.replay[stage])
        prepared = prepare_shards(replace(config, base=base), *shards, storage, say)
        if not scores:
            random_init = scorer.random(Path(prepared.base), config.training.seed)
            scores.append(scorer.checkpoint(Path(prepared.base)))
            forgetting_rates(scores[0], scores[0])  # refuses a base that scores 0 on a task before anything is trained
        say(f"stage {stage + 1} of {len(plan.domains)}: {domain.name}")
        # The trial's own configuration keeps the first base: what it adapts is `prepared.base`, named by content.
        result = run_trial(config, prepared, folder / f"{stage + 1}-{domain.name}", StepLines(say))
        scores.append(scorer.checkpoint(Path(result.checkpoint)))
        checkpoints[domain.name] = result.checkpoint
        base = BaseConfig(checkpoint=result.checkpoint)
    matrix = ScoreMatrix(
        stages=(BASE_STAGE, *checkpoints),
        tasks=tuple(task.name for task in tasks),
        learned_at=learned_at,
        scores=tuple(tuple(row[task.name] for task in tasks) for row in scores),
    )
    found = SequenceResult(matrix, continual_metrics(matrix, random_init), checkpoints)
    _write(found, random_init, folder)
    return found


def _prepare_audio(plan: SequencePlan, cache: Path, say: Say) -> _Audio:
    """Shards of all corpora; no side trains on what any other one holds out."""
    domains = [load_domain(domain.name, domain.data, cache, say) for domain in plan.domains]
    pools = [load_prior(plan.prior, cache, say)]
    if plan.replay_domains:
        for clips in domains[:-1]:
            pools.append([*pools[-1], *clips])
    shards, count = shard_corpora([*domains, *pools], cache, say), len(domains)
    return _Audio(shards[:count], shards[count:] if plan.replay_domains else shards[count:] * count)


def _find_tasks(audio: _Audio) -> tuple[list[Task], tuple[int, ...]]:
    """Prior tasks, then those of the domains in their order; and the stage that each is learned at."""
    sides = [labelled_tasks(ClipStore(audio.replay[0]), "prior")]
    sides += [labelled_tasks(ClipStore(shards), "target") for shards in audio.domains]
    tasks = [task for side in sides for task in side]
    doubled = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
    if doubled:
        raise ValueError(
            f"two corpora are called {doubled[0]!r}, so their tasks cannot be told apart; rename the folder of one"
        )
    return tasks, tuple(stage for stage, side in enumerate(sides) for _ in side)


class _Scorer:
    """Scores of encoders on all tasks, kept in the cache, with predictions, by what they were computed from."""

    def __init__(self, tasks: list[Task], probe: ProbeConfig, cache: Path) -> None:
        self._tasks, self._probe, self._cache = tasks, probe, cache
        self._key = {"tasks": [[task.name, task.store.folder.name] for task in tasks], "probe": to_dict(probe)}

    def checkpoint(self, folder: Path) -> dict[str, float]:
        """Of a checkpoint folder."""
        name = sha256_of(folder / "SHA256SUMS")
        return self._scores(name, content_hash([folder]), lambda: load_checkpoint(folder).encoder)

    def random(self, folder: Path, seed: int) -> dict[str, float]:
        """Of random weights in the shape of a checkpoint's encoder."""
        shape = load_checkpoint(folder).encoder.config
        generator = torch.Generator().manual_seed(seed)
        return self._scores([to_dict(shape), seed], f"random-{seed}", lambda: BeatsEncoder(shape).initialise(generator))

    def _scores(self, name: Any, checkpoint: str, encoder: Callable[[], BeatsEncoder]) -> dict[str, float]:
        folder = split_folder(self._cache / f"scores-{config_hash(self._key | {'encoder': name})}", "dev")
        if not (folder / TASKS_FILE).is_file():
            use = Use(now(), checkpoint, "tasks of a sequence", config_hash(self._key), "dev", "sequence")
            record_use(use, self._cache.parent)
            write_evaluation(evaluate_encoder(encoder().to(local_worker().device), self._tasks, self._probe), folder)
        return {result.name: result.score.score for result in read_evaluation(folder).results}


def _write(found: SequenceResult, random_init: dict[str, float], folder: Path) -> None:
    """`matrix.csv` for spreadsheets, `sequence.json` for programs."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("stage", *found.matrix.tasks))
    table.writerows((stage, *row) for stage, row in zip(found.matrix.stages, found.matrix.scores, strict=True))
    write_whole_text(folder / MATRIX_FILE, text.getvalue())
    content = {
        **asdict(found.matrix),
        "random_init": random_init,
        "metrics": found.metrics._asdict(),
        "checkpoints": found.checkpoints,
    }
    write_whole_text(folder / RESULT_FILE, json.dumps(content, indent=1))
