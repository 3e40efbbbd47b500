"""Checkpoints: our verified folder, Microsoft's BEATs files in and out, and training state."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sonar import microsoft
from sonar.checkpoint_files import (
    CheckpointError,
    filled,
    load_state,
    save_state,
    verify_sums,
    write_sums,
)
from sonar.config import from_dict, to_dict
from sonar.files import whole_folder, write_whole_file
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "export_microsoft",
    "load_checkpoint",
    "load_state",
    "load_tokenizer",
    "read_num_codes",
    "save_checkpoint",
    "save_state",
]

MODEL, TOKENIZER, HEADS = "model.safetensors", "tokenizer.safetensors", "heads.safetensors"
CONFIG, PROVENANCE = "config.json", "provenance.json"
FORMAT = "sonar-checkpoint-1"
ESTIMATOR = "estimator."  # these tensors of a tokenizer stand with the heads

State = dict[str, Tensor]
ConfigT = TypeVar("ConfigT")


@dataclass(kw_only=True)
class Checkpoint:
    """The models of one run; loaded ones are on the CPU, float32, in eval mode."""

    encoder: BeatsEncoder
    tokenizer: Tokenizer | None = None  # its estimator is None where the file had none
    predictor: LabelPredictor | None = None
    classifier: nn.Linear | None = None  # width to classes, of a fine-tuned model
    provenance: dict[str, Any] = field(default_factory=dict)  # plain values, fit for JSON


def load_checkpoint(path: str | Path, tokenizer_path: str | Path | None = None) -> Checkpoint:
    """Load models from tensors and plain values only; nothing in a file is executed.

    Args:
        path: our folder, or a Microsoft BEATs .pt file (pre-trained or fine-tuned encoder).
        tokenizer_path: our folder or a Microsoft tokenizer file; its tokenizer replaces the one at `path`.

    Returns:
        `Checkpoint`.

    Raises:
        FileNotFoundError: with the path.
        CheckpointError: for a damaged, incomplete, hostile or unsupported checkpoint; it names the file.
    """
    path = Path(path)
    if path.is_dir():
        checkpoint = _load_folder(path)
    else:
        public = microsoft.read_encoder(path)
        checkpoint = Checkpoint(encoder=public.encoder, classifier=public.classifier, provenance=public.provenance)
    if tokenizer_path is not None:
        checkpoint.tokenizer = load_tokenizer(tokenizer_path)
    return checkpoint


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of our folder or of a Microsoft tokenizer file; errors as `load_checkpoint`."""
    path = Path(path)
    if not path.is_dir():
        return microsoft.read_tokenizer(path)
    tokenizer = _load_folder(path).tokenizer
    if tokenizer is None:
        raise CheckpointError(f"{path}: holds no tokenizer")
    return tokenizer


def read_num_codes(folder: str | Path) -> int | None:
    """Codes of the tokenizer in a folder of ours, by its configuration alone; None without a tokenizer."""
    tokenizer = _read_json(Path(folder) / CONFIG).get("tokenizer")
    return None if tokenizer is None else int(tokenizer["num_codes"])


def save_checkpoint(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write {model, tokenizer, heads}.safetensors, config.json, provenance.json, SHA256SUMS: whole or absent.

    Raises:
        FileExistsError: if the folder exists; nothing is ever replaced.
        TypeError: if the provenance holds more than plain values.
    """
    tokenizer, predictor, classifier = checkpoint.tokenizer, checkpoint.predictor, checkpoint.classifier
    config = {
        "format": FORMAT,
        "encoder": to_dict(checkpoint.encoder.config),
        "tokenizer": None if tokenizer is None else to_dict(tokenizer.config),
        "estimator": tokenizer is not None and tokenizer.estimator is not None,
        "predictor": None if predictor is None else to_dict(predictor.config),
        "num_classes": None if classifier is None else classifier.out_features,
    }
    texts = {
        name: json.dumps(value, indent=2) for name, value in ((CONFIG, config), (PROVENANCE, checkpoint.provenance))
    }
    tokens = _state_of(tokenizer)
    heads = {key: tokens.pop(key) for key in list(tokens) if key.startswith(ESTIMATOR)}
    heads |= _state_of(predictor, "predictor.") | _state_of(classifier, "classifier.")
    with whole_folder(Path(folder)) as partial:
        for name, state in ((MODEL, _state_of(checkpoint.encoder)), (TOKENIZER, tokens), (HEADS, heads)):
            if state:
                save_file(state, partial / name)
        for name, text in texts.items():
            (partial / name).write_text(text + "\n", encoding="utf-8")
        write_sums(partial)


def export_microsoft(
    checkpoint: Checkpoint, path: str | Path, part: Literal["encoder", "tokenizer"] = "encoder"
) -> None:
    """Write a file that the public BEATs code loads with its own strict `load_state_dict`.

    Args:
        checkpoint: what to export; heads of pre-training have no place in a public file and stay out.
        path: the .pt file, replaced only by a whole new one.
        part: "encoder" (with the classifier, if there is one) or "tokenizer" (without its estimator).

    Raises:
        ValueError: if the tokenizer is asked for and there is none.
    """
    if part == "tokenizer":
        if checkpoint.tokenizer is None:
            raise ValueError("the checkpoint has no tokenizer to export: give part='encoder'")
        content = microsoft.tokenizer_content(checkpoint.tokenizer)
    else:
        labels = checkpoint.provenance.get("label_dict", {})
        content = microsoft.encoder_content(checkpoint.encoder, checkpoint.classifier, labels)
    write_whole_file(Path(path), lambda file: torch.save(content, file))


def _state_of(module: nn.Module | None, prefix: str = "") -> State:
    """Names and CPU copies of a module's tensors; empty without a module."""
    state = {} if module is None else module.state_dict()
    return {prefix + key: value.detach().to("cpu", copy=True).contiguous() for key, value in state.items()}


def _load_folder(folder: Path) -> Checkpoint:
    """Verify and load a folder of ours."""
    names = verify_sums(folder)
    for name in (MODEL, CONFIG, PROVENANCE):
        if name not in names:
            raise CheckpointError(f"{folder / name}: not among the files of the checkpoint; it is not whole")
    config = _read_json(folder / CONFIG)
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{folder / CONFIG}: format is {config.get('format')!r}, this version reads {FORMAT!r}")
    heads = _read_safetensors(folder / HEADS) if HEADS in names else {}
    encoder_config = _section(EncoderConfig, config, "encoder", folder)
    encoder = filled(lambda: BeatsEncoder(encoder_config), _read_safetensors(folder / MODEL), folder / MODEL)
    checkpoint = Checkpoint(encoder=encoder, provenance=_read_json(folder / PROVENANCE))
    if config.get("tokenizer") is not None:
        checkpoint.tokenizer = _tokenizer_of(folder, config, heads)
    if config.get("predictor") is not None:
        predictor_config = _section(PredictorConfig, config, "predictor", folder)
        state = _under("predictor.", heads)
        checkpoint.predictor = filled(lambda: LabelPredictor(predictor_config), state, folder / HEADS)
    if config.get("num_classes") is not None:
        state = _under("classifier.", heads)
        classifier = filled(lambda: nn.Linear(encoder_config.width, config["num_classes"]), state, folder / HEADS)
        checkpoint.classifier = classifier
    return checkpoint


def _tokenizer_of(folder: Path, config: dict[str, Any], heads: State) -> Tokenizer:
    """The tokenizer of a verified folder, with its estimator if one was saved."""
    tokenizer_config = _section(TokenizerConfig, config, "tokenizer", folder)
    state = _read_safetensors(folder / TOKENIZER)
    state |= {key: value for key, value in heads.items() if key.startswith(ESTIMATOR)}
    has_estimator = bool(config.get("estimator"))
    return filled(lambda: Tokenizer(tokenizer_config, with_estimator=has_estimator), state, folder / TOKENIZER)


def _section(cls: type[ConfigT], config: dict[str, Any], name: str, folder: Path) -> ConfigT:
    """One part of config.json as its dataclass."""
    try:
        return from_dict(cls, config[name])
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {name} cannot be used: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is no JSON object")
    return content


def _read_safetensors(path: Path) -> State:
    """Names and tensors of a file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error})") from error


def _under(prefix: str, state: State) -> State:
    """The entries below a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
