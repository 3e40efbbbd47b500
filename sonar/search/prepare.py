"""What no trial changes, computed once per sweep and shared by path: shards, base, base scores, embeddings.

Everything lies under `STORAGE/cache` in folders named by the hash of what they were made from, so a second sweep
over the same audio and base starts at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.checkpoint import Checkpoint, load_checkpoint, load_state, read_num_codes, save_checkpoint, save_state
from sonar.config import config_hash, to_dict
from sonar.data.corpora import ScanResult, load_corpus
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.shards import write_shards
from sonar.data.splits import check_labelled_splits
from sonar.data.stream import ClipStore, batch_clips
from sonar.data.synth import write_synth_corpus
from sonar.evaluate.embed import embed_batches
from sonar.evaluate.probe import ProbeScore
from sonar.evaluate.run import Evaluation, evaluate_encoder, find_tasks
from sonar.experiment import BaseConfig, TrialConfig
from sonar.files import sha256_of, write_whole_file, write_whole_text
from sonar.provenance import provenance
from sonar.search.progress import StepLines
from sonar.train.pretrain import pretrain
from sonar.train.stages import Hooks, local_worker

Say = Callable[[str], None]
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


class Embeddings(NamedTuple):
    """Clip embeddings of the old tokenizer (rows of the stores named by the index arrays)."""

    new_index: np.ndarray
    new: np.ndarray
    prior_index: np.ndarray
    prior: np.ndarray


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
    cache = storage / "cache"
    new_shards, prior_shards = shard_corpora(_load_sources(sources, cache, say), cache, say)
    return prepare_shards(config, new_shards, prior_shards, storage, say)


def prepare_shards(config: TrialConfig, new_shards: Path, prior_shards: Path, storage: Path, say: Say) -> Prepared:
    """The part of `prepare` that follows the shards."""
    cache = storage / "cache"
    new, prior = ClipStore(new_shards), ClipStore(prior_shards)
    base_folder = _base(config.base, prior, cache, manifest_hash(prior.clips), say)
    _warn_of_few_tokens(config, base_folder, say)
    key = config_hash(
        {"base": base_folder.name, "shards": [new_shards.name, prior_shards.name], "probe": to_dict(config.probe),
         "clip_seconds": config.training.clip_seconds}
    )  # fmt: skip
    baseline = cache / f"baseline-{key}.json"
    embeddings = cache / f"embeddings-{key}.npz"
    if not (baseline.exists() and embeddings.exists()):
        base = load_checkpoint(base_folder)
        base.encoder.to(local_worker().device)
        say("scoring the base model and embedding the corpora")
        evaluation = evaluate_encoder(base.encoder, find_tasks(new, prior), config.probe)
        found = _embed(base, new, prior, config.training.clip_seconds)
        write_whole_file(embeddings, lambda file: np.savez(file, **found._asdict()))
        write_whole_text(baseline, json.dumps(evaluation._asdict(), indent=1))
    paths = (new_shards, prior_shards, base_folder, baseline, embeddings)
    return Prepared(*(str(path.resolve()) for path in paths))


def prepare_base(config: BaseConfig, prior_paths: tuple[str, ...], storage: Path, say: Say) -> Path:
    """Only the base of `prepare`: pre-trained on the prior corpora, or imported; returns its folder."""
    cache = storage / "cache"
    store = ClipStore(_shard(load_prior(prior_paths, cache, say), cache, say))
    return _base(config, store, cache, manifest_hash(store.clips), say)


def read_baseline(path: str) -> Evaluation:
    """The base model's scores, as `prepare` wrote them."""
    roles = json.loads(Path(path).read_text())
    return Evaluation(
        **{role: {task: ProbeScore(*score) for task, score in tasks.items()} for role, tasks in roles.items()}
    )


def read_embeddings(path: str) -> Embeddings:
    """The clip embeddings that task-relevant sampling draws from."""
    with np.load(path, allow_pickle=False) as arrays:
        return Embeddings(**{name: arrays[name] for name in Embeddings._fields})


def load_domain(name: str, path: str | None, cache: Path, say: Say) -> list[Clip]:
    """Clips of a domain's corpus; without a path, of the embedded corpus of that name."""
    return _load(path or _synthetic(name, cache), name, say)


def load_prior(paths: tuple[str, ...], cache: Path, say: Say) -> list[Clip]:
    """Clips of all prior corpora; without paths, of the embedded one."""
    paths = paths or (_synthetic("prior", cache),)
    return [clip for path in paths for clip in _load(path, "prior", say)]


def shard_corpora(sides: Sequence[list[Clip]], cache: Path, say: Say) -> list[Path]:
    """Folders of the shards of each side, without training clips that an evaluation split of any side holds."""
    return [_shard(clips, cache, say) for clips in _separate(sides, say)]


def _load_sources(sources: Sources, cache: Path, say: Say) -> list[list[Clip]]:
    return [load_domain(sources.domain, sources.data, cache, say), load_prior(sources.prior, cache, say)]


def _synthetic(name: str, cache: Path) -> str:
    folder = cache / f"synth-{name}"
    return str(folder if folder.exists() else write_synth_corpus(name, folder, clips_per_class=SYNTH_CLIPS_PER_CLASS))


def _load(path: str, domain: str, say: Say) -> list[Clip]:
    scan: ScanResult = load_corpus(path, domain=domain)
    hours = sum(clip.duration_s for clip in scan.clips) / 3600
    say(f"{domain}: {path}: {len(scan.clips)} clips, {hours:.2f} h, {len(scan.quarantine)} quarantined")
    for bad in scan.quarantine:
        say(f"  quarantined {bad.path}: {bad.reason}")
    check_labelled_splits(scan.clips)
    return list(scan.clips)


def _separate(sides: Sequence[list[Clip]], say: Say) -> list[list[Clip]]:
    """Take audio that some evaluation split holds out of every training split."""
    held_out = {clip.sha256 for clips in sides for clip in clips if clip.split != "train"}
    kept = [[clip for clip in clips if clip.split != "train" or clip.sha256 not in held_out] for clips in sides]
    dropped = sum(map(len, sides)) - sum(map(len, kept))
    if dropped:
        say(f"{dropped} training clips left out: their audio is in an evaluation split")
    return kept


def _shard(clips: Sequence[Clip], cache: Path, say: Say) -> Path:
    folder = cache / f"shards-{manifest_hash(clips)}"
    summary = write_shards(clips, folder)
    for bad in summary.quarantine:
        say(f"  quarantined {bad.path}: {bad.reason}")
    return folder


def _base(config: BaseConfig, prior: ClipStore, cache: Path, prior_hash: str, say: Say) -> Path:
    """Folder of the base in our format: imported, or pre-trained on the prior corpora."""
    if config.checkpoint is not None:
        files = [Path(path) for path in (config.checkpoint, config.tokenizer) if path is not None]
        folder = cache / f"base-{_content_hash(files)}"
        if folder.exists():
            return folder
        base = load_checkpoint(config.checkpoint, config.tokenizer)
    else:
        folder = cache / f"base-{config_hash({'config': to_dict(config.pretrain), 'prior': prior_hash})}"
        if folder.exists():
            return folder
        base = _pretrain(config, prior, folder, say)
    save_checkpoint(base, folder)
    return folder


def _content_hash(paths: Sequence[Path]) -> str:
    """12 hex digits of the content of checkpoint files or folders (whose SHA256SUMS names all of theirs)."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no checkpoint at {path}")
    files = [path / "SHA256SUMS" if path.is_dir() else path for path in paths]
    return config_hash({"files": [sha256_of(file) for file in files]})


def _pretrain(config: BaseConfig, prior: ClipStore, folder: Path, say: Say) -> Checkpoint:
    say("no base given: pre-training a small one on the prior corpora (once; it is kept)")
    state_path = folder.with_suffix(".state")
    hooks = Hooks(
        report=StepLines(say),
        save=lambda state: save_state(state, state_path),
        state=load_state(state_path) if state_path.exists() else None,
    )
    base = pretrain(prior, prior.index(split="train"), config.pretrain, hooks, local_worker())
    state_path.unlink(missing_ok=True)
    return dataclasses.replace(base, provenance={"pretrain": to_dict(config.pretrain), "made_by": provenance()})


def _warn_of_few_tokens(config: TrialConfig, base: Path, say: Say) -> None:
    """Here and not in a trial, so that a sweep says it once."""
    num_codes = read_num_codes(base)
    warning = None if num_codes is None else config.adapt_config().token_shortage(num_codes)
    if warning:
        say(warning)


def _embed(base: Checkpoint, new: ClipStore, prior: ClipStore, clip_seconds: float) -> Embeddings:
    if base.tokenizer is None:
        raise ValueError("this base has no tokenizer; name the tokenizer of the same BEATs iteration (--tokenizer)")
    encoder = base.tokenizer.encoder.to(local_worker().device)
    new_index, prior_index = new.index(split="train"), prior.index(split="train")
    return Embeddings(
        new_index,
        embed_batches(encoder, batch_clips(new, new_index, clip_seconds)),
        prior_index,
        embed_batches(encoder, batch_clips(prior, prior_index, clip_seconds)),
    )
