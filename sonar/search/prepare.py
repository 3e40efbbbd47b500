"""What no trial changes, computed once per sweep and shared by path: shards, base, base scores, embeddings.

Everything lies under `STORAGE/cache` in folders named by the hash of what they were made from, so a second sweep
over the same audio and base starts at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sonar.checkpoint import load_checkpoint, read_num_codes
from sonar.config import config_hash, to_dict
from sonar.data.corpora import ScanResult, load_corpus
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.scan import ScanOptions
from sonar.data.scan_progress import ScanLines
from sonar.data.shards import write_shards
from sonar.data.splits import check_labelled_splits
from sonar.data.storage import as_root
from sonar.data.stream import ClipStore
from sonar.data.synth import write_synth_corpus
from sonar.evaluate.ledger import Use, now, record_use
from sonar.evaluate.record import Evaluation, read_evaluation, split_folder, write_evaluation
from sonar.evaluate.run import evaluate_encoder, find_tasks
from sonar.experiment import BaseConfig, TrialConfig
from sonar.files import write_whole_text
from sonar.search.base import content_hash, find_base
from sonar.search.base_codes import keep_base_codes
from sonar.search.embeddings import write_embeddings
from sonar.search.leakage import separate, without_near_duplicates
from sonar.search.progress import Say
from sonar.search.ranking import keep_ranking
from sonar.train.stages import local_worker

TRIAL_TASKS = "tasks of trials"  # what the ledger calls them; their hash is that of the baseline
SYNTH_CLIPS_PER_CLASS = 30  # of the embedded corpora: seconds to make, and enough for a probe


class Sources(NamedTuple):
    """Where the audio of a sweep comes from.

    Attributes:
        domain: name of the new domain.
        data: folder or manifest of the new domain; None: the embedded corpus of that domain.
        prior: folders or manifests of prior corpora; empty: the embedded prior corpus.
    """

    domain: str
    data: str | None = None
    prior: tuple[str, ...] = ()


class Prepared(NamedTuple):
    """Paths of what the trials of a sweep share; strings, so that they travel to any worker."""

    new_shards: str
    prior_shards: str
    base: str
    baseline: str
    embeddings: str


def prepare(config: TrialConfig, sources: Sources, storage: Path, say: Say) -> Prepared:
    """Scan, shard, build or load the base, score it, embed: whatever is not in the cache yet.

    Args:
        config: the sweep's base configuration.
        sources: where the audio is.
        storage: the sweep storage; `cache` below it is filled.
        say: hears one line per thing done.

    Raises:
        FileNotFoundError: a corpus or checkpoint is not there.
        ValueError: a corpus is empty, a class lacks a clip in a split, or a file is not what it should be.
    """
    cache = cache_of(storage)
    new_shards, prior_shards = shard_corpora(_load_sources(sources, cache, say), cache, say)
    return prepare_shards(config, new_shards, prior_shards, storage, say)


def cache_of(storage: Path) -> Path:
    """Folder of shared work, absolute, as workers of other nodes have other working folders."""
    return (storage / "cache").resolve()


def prepare_shards(config: TrialConfig, new_shards: Path, prior_shards: Path, storage: Path, say: Say) -> Prepared:
    """The part of `prepare` that follows the shards."""
    cache = cache_of(storage)
    base = find_base(config.base, prior_shards, cache, say)
    _warn_of_few_tokens(config, base, say)
    key = config_hash(
        {"base": base.name, "shards": [new_shards.name, prior_shards.name], "probe": to_dict(config.probe)}
    )
    baseline = cache / f"baseline-{key}.json"
    if not baseline.exists():
        _score(base, new_shards, prior_shards, config, baseline, say)
    key = config_hash(
        {"base": base.name, "shards": [new_shards.name, prior_shards.name], "seconds": config.training.clip_seconds}
    )
    embeddings = cache / f"embeddings-{key}"
    if not embeddings.exists():
        say("embedding the training clips by the old tokenizer")
        write_embeddings(embeddings, base, (new_shards, prior_shards), config.training.clip_seconds)
    keep_base_codes(embeddings, base, prior_shards, config.training.clip_seconds)
    keep_ranking(embeddings, (ClipStore(new_shards), ClipStore(prior_shards)), config.sampling)
    paths = (new_shards, prior_shards, base, baseline, embeddings)
    return Prepared(*map(str, paths))


def prepare_base(config: BaseConfig, prior_paths: tuple[str, ...], storage: Path, say: Say) -> Path:
    """Only the base of `prepare`: pre-trained on the prior corpora, or imported; returns its folder."""
    cache = cache_of(storage)
    (prior_shards,) = shard_corpora([load_prior(prior_paths, cache, say)], cache, say)
    return find_base(config, prior_shards, cache, say)


def read_baseline(path: str) -> Evaluation:
    """The base model's scores, as `prepare` left them."""
    return read_evaluation(split_folder(_baseline_folder(Path(path)), "dev"))


def load_domain(name: str, path: str | None, cache: Path, say: Say) -> list[Clip]:
    """Clips of a domain's corpus; without a path, of the embedded corpus of that name."""
    return _load(path or _synthetic(name, cache), name, cache, say)


def load_prior(paths: tuple[str, ...], cache: Path, say: Say) -> list[Clip]:
    """Clips of all prior corpora; without paths, of the embedded one."""
    paths = paths or (_synthetic("prior", cache),)
    return [clip for path in paths for clip in _load(path, "prior", cache, say)]


def shard_corpora(sides: Sequence[list[Clip]], cache: Path, say: Say) -> list[Path]:
    """Folders of the shards of each side, without training clips that an evaluation split of any side holds."""
    shards = [_shard(clips, cache, say) for clips in separate(sides, say)]
    return without_near_duplicates(shards, cache, say)


def _load_sources(sources: Sources, cache: Path, say: Say) -> list[list[Clip]]:
    return [load_domain(sources.domain, sources.data, cache, say), load_prior(sources.prior, cache, say)]


def _synthetic(name: str, cache: Path) -> str:
    folder = cache / f"synth-{name}"
    return str(folder if folder.exists() else write_synth_corpus(name, folder, clips_per_class=SYNTH_CLIPS_PER_CLASS))


def scan_options(path: str, cache: Path, say: Say) -> ScanOptions:
    """How a corpus of a sweep is scanned: what is found is kept in the cache, so that only changes are read again."""
    record = cache / f"scan-{config_hash({'corpus': as_root(path)})}.jsonl"
    return ScanOptions(record=record, report=ScanLines(say))


def _load(path: str, domain: str, cache: Path, say: Say) -> list[Clip]:
    scan: ScanResult = load_corpus(path, domain=domain, options=scan_options(path, cache, say))
    hours = sum(clip.duration_s for clip in scan.clips) / 3600
    say(f"{domain}: {path}: {len(scan.clips)} clips, {hours:.2f} h, {len(scan.quarantine)} quarantined")
    for bad in scan.quarantine:
        say(f"  quarantined {bad.path}: {bad.reason}")
    check_labelled_splits(scan.clips)
    return list(scan.clips)


def _shard(clips: Sequence[Clip], cache: Path, say: Say) -> Path:
    folder = cache / f"shards-{manifest_hash(clips)}"
    summary = write_shards(clips, folder)
    for bad in summary.quarantine:
        say(f"  quarantined {bad.path}: {bad.reason}")
    return folder


def _score(base: Path, new_shards: Path, prior_shards: Path, config: TrialConfig, path: Path, say: Say) -> None:
    say("scoring the base model")
    record_dev_use(path, base, "base of trials")
    encoder = load_checkpoint(base).encoder.to(local_worker().device)
    tasks = find_tasks(ClipStore(new_shards), ClipStore(prior_shards))
    evaluation = evaluate_encoder(encoder, tasks, config.probe)
    write_evaluation(evaluation, split_folder(_baseline_folder(path), "dev"))
    scores = {role: evaluation.scores(role) for role in ("target", "prior")}
    write_whole_text(path, json.dumps(scores, indent=1))


def record_dev_use(baseline: str | Path, checkpoint: Path, purpose: str) -> None:
    """Say in the storage's ledger that the tasks of a sweep were scored on dev."""
    path = Path(baseline)
    use = Use(now(), content_hash([checkpoint]), TRIAL_TASKS, path.stem.removeprefix("baseline-"), "dev", purpose)
    record_use(use, path.parents[1])


def _baseline_folder(path: Path) -> Path:
    """Where the predictions behind a baseline's scores lie: laid out as in the folder of a trial."""
    return path.with_suffix("")


def _warn_of_few_tokens(config: TrialConfig, base: Path, say: Say) -> None:
    """Here and not in a trial, so that a sweep says it once."""
    num_codes = read_num_codes(base)
    warning = None if num_codes is None else config.adapt_config().token_shortage(num_codes)
    if warning:
        say(warning)
