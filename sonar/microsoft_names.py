"""The public BEATs files: their `cfg` and state-dict names to ours and back. Names only, no files.

Layout: {'cfg': dict, 'model': state dict} and 'label_dict' in fine-tuned ones, as published at
github.com/microsoft/unilm/tree/master/beats.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sonar.checkpoint_files import CheckpointError
from sonar.config import from_dict, to_dict
from sonar.model.encoder import EncoderConfig
from sonar.model.fbank import PATCH_SIZE, FbankConfig
from sonar.model.tokenizer import TokenizerConfig

Cfg = Mapping[str, Any]
State = dict[str, Tensor]

# Microsoft's name, our field of EncoderConfig, the reference's default where a file lacks the key.
ENCODER_KEYS: tuple[tuple[str, str, Any], ...] = (
    ("embed_dim", "patch_width", 512),
    ("conv_bias", "patch_bias", False),
    ("encoder_layers", "num_layers", 12),
    ("encoder_embed_dim", "width", 768),
    ("encoder_ffn_embed_dim", "ffn_width", 3072),
    ("encoder_attention_heads", "num_heads", 12),
    ("activation_fn", "activation", "gelu"),
    ("layer_wise_gradient_decay_ratio", "gradient_decay", 1.0),
    ("layer_norm_first", "norm_first", False),
    ("deep_norm", "deep_norm", False),
    ("dropout", "dropout", 0.1),
    ("attention_dropout", "attention_dropout", 0.1),
    ("activation_dropout", "activation_dropout", 0.0),
    ("encoder_layerdrop", "layer_drop", 0.0),
    ("dropout_input", "input_dropout", 0.0),
    ("conv_pos", "position_kernel", 128),
    ("conv_pos_groups", "position_groups", 16),
    ("relative_position_embedding", "relative_position", False),
    ("num_buckets", "num_buckets", 320),
    ("max_distance", "max_distance", 1280),
    ("gru_rel_pos", "gated", False),
)
FBANK_KEYS = (("fbank_mean", "mean"), ("fbank_std", "std"))  # ours: the reference has them in its code
OTHER_KEYS = (
    "input_patch_size",
    "finetuned_model",
    "predictor_dropout",
    "predictor_class",
    "quant_n",
    "quant_dim",
)
KNOWN_KEYS = frozenset([*(key for key, _, _ in ENCODER_KEYS), *(key for key, _ in FBANK_KEYS), *OTHER_KEYS])

POSITION = "encoder.pos_conv.0."
RENAMED = {  # torch's new names of weight normalisation
    POSITION + "parametrizations.weight.original0": POSITION + "weight_g",
    POSITION + "parametrizations.weight.original1": POSITION + "weight_v",
}
RELATIVE_BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"  # one table, under every layer's name
CODE_VECTORS = "quantize.embedding.weight"
CLUSTER_SIZE = "quantize.cluster_size"
# State of the reference's quantiser that is a copy of other state or only steers its own k-means start.
DROPPED_TOKENIZER_KEYS = (
    "quantize.embedding.cluster_size",
    "quantize.embedding.embed_avg",
    "quantize.embedding.initted",
)
CLASSIFIER_KEYS = {"weight": "predictor.weight", "bias": "predictor.bias"}


class KeyPair(NamedTuple):
    """One tensor of a public file and where it lives in ours."""

    theirs: str
    ours: str
    part: int | None = None  # third of our fused query-key-value tensor


def encoder_config(cfg: Cfg) -> EncoderConfig:
    """Our config of a public `cfg`, the reference's defaults for missing keys; unknown keys are ignored."""
    patch_size = cfg.get("input_patch_size", PATCH_SIZE)
    if patch_size != PATCH_SIZE:
        raise CheckpointError(f"input_patch_size is {patch_size!r}: only {PATCH_SIZE} is supported")
    values: dict[str, Any] = {ours: cfg.get(theirs, default) for theirs, ours, default in ENCODER_KEYS}
    values["fbank"] = {ours: cfg[theirs] for theirs, ours in FBANK_KEYS if theirs in cfg}
    return _checked(EncoderConfig, values)


def tokenizer_config(cfg: Cfg) -> TokenizerConfig:
    """Our config of a public tokenizer's `cfg`."""
    values = {"num_codes": cfg.get("quant_n", 1024), "code_width": cfg.get("quant_dim", 256)}
    return _checked(TokenizerConfig, values | {"encoder": to_dict(encoder_config(cfg))})


def _checked(cls: type[Any], values: dict[str, Any]) -> Any:
    try:
        return from_dict(cls, values)
    except ValueError as error:
        raise CheckpointError(f"cfg describes no model that is supported: {error}") from error


def encoder_cfg(config: EncoderConfig) -> dict[str, Any]:
    """The public `cfg` of an encoder; front-end constants only where they are not the reference's."""
    cfg = {theirs: getattr(config, ours) for theirs, ours, _ in ENCODER_KEYS}
    default = FbankConfig()
    for theirs, ours in FBANK_KEYS:
        if getattr(config.fbank, ours) != getattr(default, ours):
            cfg[theirs] = getattr(config.fbank, ours)
    return cfg | {"input_patch_size": PATCH_SIZE, "finetuned_model": False}


def tokenizer_cfg(config: TokenizerConfig) -> dict[str, Any]:
    """The public `cfg` of a tokenizer."""
    cfg = encoder_cfg(config.encoder)
    del cfg["finetuned_model"]
    return cfg | {"quant_n": config.num_codes, "quant_dim": config.code_width}


def encoder_pairs(config: EncoderConfig) -> Iterator[KeyPair]:
    """Every tensor of an encoder with this config."""
    modules = [("layer_norm", "patch_norm"), ("encoder.layer_norm", "norm")]
    if config.patch_width != config.width:
        modules.append(("post_extract_proj", "patch_projection"))
    yield KeyPair("patch_embedding.weight", "patch_embedding.weight")
    if config.patch_bias:
        yield KeyPair("patch_embedding.bias", "patch_embedding.bias")
    for theirs, ours in (("weight_g", "gain"), ("weight_v", "direction"), ("bias", "bias")):
        yield KeyPair(POSITION + theirs, "position_conv." + ours)
    if config.relative_position:
        yield KeyPair(RELATIVE_BIAS.format(0), "transformer.relative_bias.weight")
    for layer in range(config.num_layers):
        modules.extend(_layer_modules(layer, config.gated))
        yield from _attention_pairs(layer, config.gated)
    for theirs, ours in modules:
        for kind in ("weight", "bias"):
            yield KeyPair(f"{theirs}.{kind}", f"{ours}.{kind}")


def _layer_modules(layer: int, gated: bool) -> Iterator[tuple[str, str]]:
    """Modules with weight and bias of one layer: (theirs, ours)."""
    theirs, ours = f"encoder.layers.{layer}.", f"transformer.layers.{layer}."
    yield theirs + "self_attn.out_proj", ours + "attention.out"
    yield theirs + "self_attn_layer_norm", ours + "attention_norm"
    yield theirs + "final_layer_norm", ours + "ffn_norm"
    for name in ("fc1", "fc2"):
        yield theirs + name, ours + name
    if gated:
        yield theirs + "self_attn.grep_linear", ours + "attention.gate"


def _attention_pairs(layer: int, gated: bool) -> Iterator[KeyPair]:
    """Query, key and value, which we hold as one, and the scale of the gate."""
    theirs, ours = f"encoder.layers.{layer}.self_attn.", f"transformer.layers.{layer}.attention."
    for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
        for kind in ("weight", "bias"):
            yield KeyPair(f"{theirs}{name}.{kind}", f"{ours}qkv.{kind}", part)
    if gated:
        yield KeyPair(theirs + "grep_a", ours + "gate_scale")


def tokenizer_pairs(config: TokenizerConfig) -> Iterator[KeyPair]:
    """Every tensor of a tokenizer with this config, in the order of ours."""
    for pair in encoder_pairs(config.encoder):
        yield pair._replace(ours="encoder." + pair.ours)
    for layer in ("0", "2"):
        for kind in ("weight", "bias"):
            yield KeyPair(f"quantize_layer.{layer}.{kind}", f"projection.{layer}.{kind}")
    yield KeyPair(CODE_VECTORS, "codebook.vectors")
    yield KeyPair(CLUSTER_SIZE, "codebook.cluster_size")


def shared_bias_keys(config: EncoderConfig) -> list[str]:
    """Names under which a public file repeats the one table of position biases."""
    return [RELATIVE_BIAS.format(layer) for layer in range(1, config.num_layers)] if config.relative_position else []


def import_state(state: State, pairs: list[KeyPair], dropped: list[str]) -> State:
    """Our state dict of a public one.

    Args:
        state: the public names; old and new names of weight normalisation are both taken.
        pairs: what must be there.
        dropped: what may be there and is left out on purpose.

    Raises:
        CheckpointError: naming keys that are missing or that nothing is known of.
    """
    state = {RENAMED.get(key, key): value for key, value in state.items()}
    wanted = {pair.theirs for pair in pairs}
    missing, unknown = sorted(wanted - set(state)), sorted(set(state) - wanted - set(dropped))
    if missing or unknown:
        raise CheckpointError(f"the weights do not fit cfg: missing {_some(missing)}, unknown {_some(unknown)}")
    parts: dict[str, list[Tensor]] = {}
    for pair in pairs:
        parts.setdefault(pair.ours, []).append(state[pair.theirs].float())
    return {ours: torch.cat(tensors) if len(tensors) > 1 else tensors[0] for ours, tensors in parts.items()}


def export_state(state: State, pairs: list[KeyPair]) -> State:
    """The public names of our state dict; tensors are copies."""
    return {
        pair.theirs: (state[pair.ours] if pair.part is None else state[pair.ours].chunk(3)[pair.part]).clone()
        for pair in pairs
    }


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:4]) or "nothing"
    return shown if len(keys) <= 4 else f"{shown} and {len(keys) - 4} more"
