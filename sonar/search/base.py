"""The base model of a sweep, made once: imported from a checkpoint, or pre-trained on the prior corpora."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sonar.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from sonar.config import config_hash, to_dict
from sonar.data.stream import ClipStore
from sonar.experiment import BaseConfig
from sonar.files import sha256_of
from sonar.provenance import provenance
from sonar.search.progress import Say, StepLines
from sonar.train.pretrain import pretrain
from sonar.train.stages import Hooks, local_worker


def find_base(config: BaseConfig, prior_shards: Path, cache: Path, say: Say) -> Path:
    """Folder of the base in our format, named by what it was made from; it is made where it is not there.

    Args:
        config: a checkpoint, or the small base to pre-train.
        prior_shards: folder of the prior clips, named by their manifest.
        cache: where the base is kept.
        say: hears the steps of a pre-training.

    Raises:
        FileNotFoundError: a checkpoint is not there.
        CheckpointError: it is damaged or unsupported.
        ValueError: it has no tokenizer.
    """
    if config.checkpoint is not None:
        files = [Path(path) for path in (config.checkpoint, config.tokenizer) if path is not None]
        folder = cache / f"base-{content_hash(files)}"
        if folder.exists():
            return folder
        base = load_checkpoint(config.checkpoint, config.tokenizer)
        if base.tokenizer is None:
            raise ValueError("this base has no tokenizer; name the tokenizer of the same BEATs iteration (--tokenizer)")
    else:
        folder = cache / f"base-{config_hash({'config': to_dict(config.pretrain), 'prior': prior_shards.name})}"
        if folder.exists():
            return folder
        base = _pretrain(config, ClipStore(prior_shards), folder, say)
    save_checkpoint(base, folder)
    return folder


def content_hash(paths: Sequence[Path]) -> str:
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
