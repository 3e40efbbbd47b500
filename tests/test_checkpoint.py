"""Checkpoints: round trips, public files, damage, hostility, and writers that die half-way."""

import copy
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sonar import checkpoint_files
from sonar.checkpoint import (
    Checkpoint,
    CheckpointError,
    export_microsoft,
    load_checkpoint,
    load_state,
    load_tokenizer,
    save_checkpoint,
)
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.fbank import FbankConfig
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig

CASES = Path(__file__).parent / "golden" / "cases"
CONFIG = EncoderConfig(
    num_layers=2,
    width=32,
    ffn_width=64,
    num_heads=4,
    patch_width=16,
    position_kernel=8,
    position_groups=4,
    num_buckets=32,
    max_distance=80,
    fbank=FbankConfig(mean=10.5, std=4.0),
)
LOG_MEL = torch.randn(2, 48, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def checkpoint() -> Checkpoint:
    generator = torch.Generator().manual_seed(1)
    config = TokenizerConfig(encoder=CONFIG, num_codes=32, code_width=8, estimator_layers=1)
    classifier = nn.Linear(CONFIG.width, 5)
    made = Checkpoint(
        encoder=BeatsEncoder(CONFIG).initialise(generator),
        tokenizer=Tokenizer(config).initialise(generator),
        predictor=LabelPredictor(PredictorConfig(transformer=CONFIG.stack(1), num_codes=32)).initialise(generator),
        classifier=classifier,
        provenance={"seed": 1, "label_dict": {"0": "/m/a", "1": "/m/b"}},
    )
    for part in (made.encoder, made.tokenizer, made.predictor):
        assert part is not None
        part.eval()
    return made


def public_file(path: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A Microsoft file of a golden tiny model."""
    cfg = json.loads((CASES / f"{name}.cfg.json").read_text())["cfg"]
    arrays = np.load(CASES / f"{name}.state.npz")
    model = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    torch.save({"cfg": cfg, "model": model, "label_dict": {0: "/m/0", 1: "/m/1"}}, path)
    return cfg, model


def same_state(first: nn.Module | None, second: nn.Module | None) -> bool:
    assert first is not None and second is not None
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_our_folder_comes_back_bit_for_bit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "model.safetensors", "tokenizer.safetensors", "heads.safetensors",
        "config.json", "provenance.json", "SHA256SUMS",
    }  # fmt: skip
    loaded = load_checkpoint(tmp_path / "run")
    for part in ("encoder", "tokenizer", "predictor", "classifier"):
        assert same_state(getattr(checkpoint, part), getattr(loaded, part))
    assert loaded.encoder.config == CONFIG and loaded.provenance == checkpoint.provenance
    assert not loaded.encoder.training
    assert torch.equal(loaded.encoder(LOG_MEL).last, checkpoint.encoder(LOG_MEL).last)


def test_sums_are_those_of_sha256sum(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "run", check=True)


def test_parts_that_are_absent_stay_absent(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(encoder=checkpoint.encoder), tmp_path / "alone")
    loaded = load_checkpoint(tmp_path / "alone")
    assert loaded.tokenizer is None and loaded.predictor is None and loaded.classifier is None
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "alone")
    assert checkpoint.tokenizer is not None
    checkpoint.tokenizer.estimator = None
    save_checkpoint(checkpoint, tmp_path / "bare")
    tokenizer = load_checkpoint(tmp_path / "alone", tmp_path / "bare").tokenizer
    assert tokenizer is not None and tokenizer.estimator is None and same_state(tokenizer, checkpoint.tokenizer)


def test_a_loaded_model_can_be_trained_and_copied(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    encoder = copy.deepcopy(load_checkpoint(tmp_path / "run").encoder).train()
    encoder(LOG_MEL).last.sum().backward()
    assert all(value.grad is not None for value in encoder.parameters())


def test_an_existing_folder_is_never_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    with pytest.raises(FileExistsError, match="exists already: give a new name"):
        save_checkpoint(checkpoint, tmp_path / "run")


@pytest.mark.parametrize("name", ["enc_tiny", "enc_tiny_noproj", "enc_tiny_nogate", "ft_tiny"])
def test_public_files_come_back_under_every_key_bit_for_bit(tmp_path: Path, name: str) -> None:
    cfg, model = public_file(tmp_path / "in.pt", name)
    loaded = load_checkpoint(tmp_path / "in.pt")
    export_microsoft(loaded, tmp_path / "out.pt")
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    assert content["model"].keys() == model.keys()
    assert all(torch.equal(content["model"][key], model[key]) for key in model)
    assert content["cfg"] == cfg
    assert loaded.provenance["source"]["cfg"] == cfg
    if name == "ft_tiny":
        assert content["label_dict"] == {0: "/m/0", 1: "/m/1"} and loaded.classifier is not None


def test_a_public_tokenizer_comes_back_under_every_key(tmp_path: Path) -> None:
    cfg, model = public_file(tmp_path / "in.pt", "tok_tiny")
    public_file(tmp_path / "enc.pt", "enc_tiny")
    loaded = load_checkpoint(tmp_path / "enc.pt", tmp_path / "in.pt")
    export_microsoft(loaded, tmp_path / "out.pt", "tokenizer")
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    assert content["model"].keys() == model.keys()
    redundant = {"quantize.embedding.cluster_size"}  # its own k-means count, not read by anything
    assert all(torch.equal(content["model"][key], model[key]) for key in model.keys() - redundant)
    assert content["cfg"] == {key: value for key, value in cfg.items() if key != "finetuned_model"}
    assert loaded.tokenizer is not None and same_state(load_tokenizer(tmp_path / "out.pt"), loaded.tokenizer)
    assert loaded.tokenizer.codebook.usage.sum().item() == pytest.approx(1.0)


def test_exports_carry_their_front_end(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export_microsoft(checkpoint, tmp_path / "out.pt")
    loaded = load_checkpoint(tmp_path / "out.pt")
    assert loaded.encoder.config == CONFIG and same_state(loaded.encoder, checkpoint.encoder)
    checkpoint.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer to export"):
        export_microsoft(checkpoint, tmp_path / "out.pt", "tokenizer")


def test_new_names_of_weight_normalisation_are_read(tmp_path: Path) -> None:
    cfg, model = public_file(tmp_path / "old.pt", "enc_tiny")
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        model[f"encoder.pos_conv.0.parametrizations.weight.{new}"] = model.pop(f"encoder.pos_conv.0.{old}")
    torch.save({"cfg": cfg, "model": model}, tmp_path / "new.pt")
    assert same_state(load_checkpoint(tmp_path / "new.pt").encoder, load_checkpoint(tmp_path / "old.pt").encoder)


def test_missing_cfg_keys_get_the_references_defaults_and_unknown_ones_are_listed(tmp_path: Path) -> None:
    cfg, model = public_file(tmp_path / "full.pt", "enc_tiny")
    for key in (
        "encoder_layerdrop",
        "dropout",
        "layer_wise_gradient_decay_ratio",
        "conv_bias",
        "input_patch_size",
    ):
        del cfg[key]
    torch.save({"cfg": cfg | {"novelty": 3}, "model": model}, tmp_path / "short.pt")
    loaded = load_checkpoint(tmp_path / "short.pt")
    config = loaded.encoder.config
    assert (config.dropout, config.layer_drop, config.gradient_decay) == (0.1, 0.0, 1.0)
    assert loaded.provenance["source"]["unknown_cfg_keys"] == ["novelty"]
    dropped = ["encoder.layers.1.self_attn.relative_attention_bias.weight"]
    assert loaded.provenance["source"]["dropped_keys"] == dropped


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("cfg"), "has no dict 'cfg'"),
        (lambda c: c.pop("model"), "has no dict 'model'"),
        (lambda c: c["model"].pop("layer_norm.bias"), "missing layer_norm.bias"),
        (lambda c: c["model"].update(extra=torch.zeros(1)), "unknown extra"),
        (lambda c: c["model"].update({"layer_norm.bias": torch.zeros(7)}), "layer|patch_norm.bias"),
        (lambda c: c["model"].update({"layer_norm.bias": torch.full((32,), float("nan"))}), "not finite"),
        (lambda c: c["model"].update({"layer_norm.bias": "text"}), "is no named tensor"),
        (lambda c: c["cfg"].update(encoder_layers="two"), "encoder_layers|num_layers"),
        (lambda c: c["cfg"].update(encoder_layers=3), "missing encoder.layers.2"),
        (lambda c: c["cfg"].update(input_patch_size=8), "input_patch_size is 8"),
        (lambda c: c["cfg"].update(activation_fn="glu"), "'glu'"),
        (lambda c: c["cfg"].update(finetuned_model=True), "no predictor.weight"),
    ],
)
def test_a_public_file_that_does_not_fit_is_refused_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = tmp_path / "file.pt"
    cfg, model = public_file(path, "enc_tiny")
    content = {"cfg": cfg, "model": model}
    change(content)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_encoder_and_tokenizer_files_are_not_mixed_up(tmp_path: Path) -> None:
    public_file(tmp_path / "enc.pt", "enc_tiny")
    public_file(tmp_path / "tok.pt", "tok_tiny")
    with pytest.raises(CheckpointError, match="is a tokenizer; give it as the tokenizer path"):
        load_checkpoint(tmp_path / "tok.pt")
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        load_tokenizer(tmp_path / "enc.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        load_checkpoint(tmp_path / "nowhere.pt")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("load", [load_checkpoint, load_tokenizer, load_state])
@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_hostile_pickle_is_refused_and_never_run(
    tmp_path: Path, load: Callable[[Path], Any], plain_pickle: bool
) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "owned"
    if plain_pickle:
        path.write_bytes(pickle.dumps({"cfg": {}, "model": Bomb(target)}, protocol=2))
    else:
        torch.save({"cfg": {}, "model": Bomb(target)}, path)
    with pytest.raises(CheckpointError, match=r"evil.pt: refused.*mkdir") as refused:
        load(path)
    assert "weights_only" not in str(refused.value), "torch's advice to load it all the same"
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"file.pt"):
        load_checkpoint(tmp_path / "file.pt")


def test_a_truncated_public_file_is_refused(tmp_path: Path) -> None:
    public_file(tmp_path / "file.pt", "enc_tiny")
    content = (tmp_path / "file.pt").read_bytes()
    (tmp_path / "file.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"file.pt"):
        load_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "tokenizer.safetensors", "heads.safetensors", "config.json", "provenance.json"],
)
@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_file_is_refused_by_name(checkpoint: Checkpoint, tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    path = tmp_path / "run" / name
    if damage == "remove":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / "run")


def test_sums_cannot_point_outside_the_folder_and_must_exist(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    sums = tmp_path / "run" / "SHA256SUMS"
    sums.write_text("0" * 64 + "  ../secret\n")
    with pytest.raises(CheckpointError, match="does not name a file in its folder"):
        load_checkpoint(tmp_path / "run")
    sums.unlink()
    with pytest.raises(CheckpointError, match="no SHA256SUMS"):
        load_checkpoint(tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "format is 'other'"),
        ("encoder", {"layers": 3}, "encoder cannot be used"),
        ("predictor", 3, "predictor"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    save_checkpoint(checkpoint, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    (tmp_path / "run" / "SHA256SUMS").unlink()
    checkpoint_files.write_sums(tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "run")


def test_a_failed_save_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sonar.checkpoint.write_sums", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(checkpoint, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
