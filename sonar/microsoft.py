"""Microsoft's BEATs files, read into our modules and written so that the public code loads them strictly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sonar import microsoft_names as names
from sonar.checkpoint_files import CheckpointError, filled, load_tensors
from sonar.files import sha256_of
from sonar.model.encoder import BeatsEncoder
from sonar.model.tokenizer import Tokenizer

State = dict[str, Tensor]
T = TypeVar("T")


class PublicModel(NamedTuple):
    """A public encoder file."""

    encoder: BeatsEncoder
    classifier: nn.Linear | None  # of a fine-tuned model
    provenance: dict[str, Any]  # file, sha256, cfg, what was ignored and dropped, label_dict


def read_encoder(path: Path) -> PublicModel:
    """A pre-trained or fine-tuned encoder; errors as `sonar.checkpoint.load_checkpoint`."""
    content, state = _read(path)
    if names.CODE_VECTORS in state:
        raise CheckpointError(f"{path}: is a tokenizer; give it as the tokenizer path, beside an encoder")
    config = _about(path, lambda: names.encoder_config(content["cfg"]))
    classifier = None
    head = {ours: state.pop(theirs).float() for ours, theirs in names.CLASSIFIER_KEYS.items() if theirs in state}
    if head:
        num_classes = head["weight"].shape[0] if "weight" in head else 0
        classifier = filled(lambda: nn.Linear(config.width, num_classes), head, path)
    elif content["cfg"].get("finetuned_model"):
        raise CheckpointError(f"{path}: cfg says finetuned_model, but there is no predictor.weight")
    dropped = names.shared_bias_keys(config)
    ours = _about(path, lambda: names.import_state(state, list(names.encoder_pairs(config)), dropped))
    provenance = _provenance(path, content, [key for key in dropped if key in state])
    return PublicModel(filled(lambda: BeatsEncoder(config), ours, path), classifier, provenance)


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer without estimator: public files have none. Use starts at the shares of cluster sizes."""
    content, state = _read(path)
    if names.CODE_VECTORS not in state:
        raise CheckpointError(f"{path}: holds no tokenizer, it has no {names.CODE_VECTORS}")
    config = _about(path, lambda: names.tokenizer_config(content["cfg"]))
    dropped = [*names.shared_bias_keys(config.encoder), *names.DROPPED_TOKENIZER_KEYS]
    ours = _about(path, lambda: names.import_state(state, list(names.tokenizer_pairs(config)), dropped))
    share = ours["codebook.cluster_size"] / ours["codebook.cluster_size"].sum().clamp(min=1e-12)
    ours |= {"codebook.usage": share, "codebook.prior_usage": share.clone()}
    return filled(lambda: Tokenizer(config, with_estimator=False), ours, path)


def encoder_content(encoder: BeatsEncoder, classifier: nn.Linear | None, labels: dict[str, str]) -> dict[str, Any]:
    """What a public encoder file holds; `labels` maps class index to name, as in the provenance."""
    cfg = names.encoder_cfg(encoder.config)
    model = names.export_state(_cpu_state(encoder), list(names.encoder_pairs(encoder.config)))
    _repeat(model, names.shared_bias_keys(encoder.config))
    if classifier is None:
        return {"cfg": cfg, "model": model}
    head = _cpu_state(classifier)
    model |= {theirs: head[ours].clone() for ours, theirs in names.CLASSIFIER_KEYS.items()}
    cfg |= {"finetuned_model": True, "predictor_class": classifier.out_features, "predictor_dropout": 0.0}
    return {"cfg": cfg, "model": model, "label_dict": {int(index): name for index, name in labels.items()}}


def tokenizer_content(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a public tokenizer file holds; the estimator has no place in it."""
    model = names.export_state(_cpu_state(tokenizer), list(names.tokenizer_pairs(tokenizer.config)))
    _repeat(model, names.shared_bias_keys(tokenizer.config.encoder))
    copies = (model[names.CLUSTER_SIZE].clone(), model[names.CODE_VECTORS].clone(), torch.ones(1))
    model |= dict(zip(names.DROPPED_TOKENIZER_KEYS, copies, strict=True))
    return {"cfg": names.tokenizer_cfg(tokenizer.config), "model": model}


def _read(path: Path) -> tuple[dict[str, Any], State]:
    """The whole content and its state dict, checked to be {'cfg': dict, 'model': names to tensors}."""
    content = load_tensors(path)
    for key in ("cfg", "model"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise CheckpointError(f"{path}: is no BEATs file, it has no dict {key!r}; give a BEATs .pt or our folder")
    state = content["model"]
    strange = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise CheckpointError(f"{path}: model[{strange[0]!r}] is no named tensor")
    return content, dict(state)


def _provenance(path: Path, content: dict[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Where the weights are from and what of the file was not used, as plain values."""
    cfg = {str(key): value for key, value in content["cfg"].items() if isinstance(value, str | int | float | None)}
    source = {
        "format": "microsoft-beats",
        "file": path.name,
        "sha256": sha256_of(path),
        "cfg": cfg,
        "unknown_cfg_keys": sorted(str(key) for key in content["cfg"] if key not in names.KNOWN_KEYS),
        "dropped_keys": dropped,
    }
    labels = content.get("label_dict")
    if isinstance(labels, dict):
        return {"source": source, "label_dict": {str(index): str(name) for index, name in labels.items()}}
    return {"source": source}


def _about(path: Path, make: Callable[[], T]) -> T:
    """What `make` returns; its CheckpointError gets the file's name."""
    try:
        return make()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _cpu_state(module: nn.Module) -> State:
    return {key: value.detach().cpu().float() for key, value in module.state_dict().items()}


def _repeat(model: State, keys: list[str]) -> None:
    """Put the table of position biases under the other layers' names too."""
    model |= {key: model[names.RELATIVE_BIAS.format(0)] for key in keys}
