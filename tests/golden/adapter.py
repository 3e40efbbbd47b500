"""The golden vectors' interface over our modules: see check_template.py for the contract."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sonar.checkpoint import load_checkpoint, load_tokenizer
from sonar.microsoft_names import encoder_pairs, export_state, shared_bias_keys
from sonar.model.codebook import Codebook, CodebookConfig
from sonar.model.encoder import BeatsEncoder, PatchPadding, patch_padding
from sonar.model.fbank import log_mel, num_patches
from sonar.model.losses import commitment_loss
from sonar.model.revival import cosine_kmeans, moving_average
from sonar.model.tokenizer import Tokenizer

Array = NDArray[Any]


class Model(NamedTuple):
    """What one public file holds."""

    encoder: BeatsEncoder
    classifier: nn.Linear | None
    tokenizer: Tokenizer | None


class Inputs(NamedTuple):
    """A batch as the encoder takes it."""

    log_mel: Tensor
    padding: PatchPadding | None

    @property
    def patch_padding(self) -> Tensor | None:
        """Padding of the patches, or None."""
        return None if self.padding is None else self.padding.patch


def load(state_dict: dict[str, Array], cfg: dict[str, Any], kind: str) -> Model:
    """Write a public file and read it as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save({"cfg": cfg, "model": {key: torch.from_numpy(value) for key, value in state_dict.items()}}, path)
        if kind == "tokenizer":
            tokenizer = load_tokenizer(path)
            return Model(tokenizer.encoder, None, tokenizer)
        checkpoint = load_checkpoint(path)
        return Model(checkpoint.encoder, checkpoint.classifier, None)


def _inputs(model: Model, wave: Array, mask: Array | None) -> Inputs:
    features = log_mel(torch.from_numpy(wave), model.encoder.config.fbank)
    if mask is None:
        return Inputs(features, None)
    return Inputs(features, patch_padding(torch.from_numpy(mask), features.shape[1], num_patches(wave.shape[1])))


@torch.no_grad()
def extract_features(model: Model, wave: Array, mask: Array | None) -> tuple[Array, Array | None]:
    """The last layer's output, or class probabilities of a fine-tuned model."""
    inputs = _inputs(model, wave, mask)
    features = model.encoder(inputs.log_mel, inputs.patch_padding).last  # (B, L, D)
    padding = inputs.patch_padding
    patch_mask = None if padding is None else padding.numpy()
    if model.classifier is None:
        return features.numpy(), patch_mask
    keep = torch.ones(features.shape[:2]) if padding is None else (~padding).float()
    logits = (model.classifier(features) * keep.unsqueeze(-1)).sum(1) / keep.sum(1, keepdim=True)  # (B, C)
    return logits.sigmoid().numpy(), patch_mask


def get_labels(model: Model, wave: Array, mask: Array | None) -> Array:
    """The tokenizer's codes."""
    assert model.tokenizer is not None
    inputs = _inputs(model, wave, mask)
    return model.tokenizer.codes(inputs.log_mel, inputs.patch_padding).numpy()


def preprocess(model: Model, wave: Array) -> Array:
    """The normalised log-mel."""
    return _inputs(model, wave, None).log_mel.numpy()


@torch.no_grad()
def hidden_states(model: Model, wave: Array, mask: Array | None) -> list[Array]:
    """Input of layer 0 and every layer's output."""
    inputs = _inputs(model, wave, mask)
    return [state.numpy() for state in model.encoder(inputs.log_mel, inputs.patch_padding, return_hidden=True).hidden]


def frame_and_patch_mask(model: Model, wave: Array, mask: Array) -> tuple[Array, Array]:
    """Padding of frames and patches."""
    padding = _inputs(model, wave, mask).padding
    assert padding is not None
    return padding.frame.numpy(), padding.patch.numpy()


def grads(
    state_dict: dict[str, Array], cfg: dict[str, Any], wave: Array, mask: Array | None, weights: Array
) -> dict[str, Array]:
    """Gradients by public name of sum(output * weights * keep) / sum(keep), in train mode without dropout."""
    model = load(state_dict, cfg, "beats")
    encoder = model.encoder.train()
    inputs = _inputs(model, wave, mask)
    assert inputs.patch_padding is not None
    keep = (~inputs.patch_padding).unsqueeze(-1).float()
    output = encoder(inputs.log_mel, inputs.patch_padding).last
    ((output * torch.from_numpy(weights) * keep).sum() / keep.sum()).backward()
    ours = {key: value.grad for key, value in encoder.named_parameters() if value.grad is not None}
    theirs = export_state(ours, list(encoder_pairs(encoder.config)))
    shared = theirs["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    theirs |= dict.fromkeys(shared_bias_keys(encoder.config), shared)
    return {key: value.numpy() for key, value in theirs.items()}


def vq(weight: Array, cluster_size: Array, z: Array, weights: Array, train: bool) -> dict[str, Array]:
    """One step of the public quantiser: beta 1, decay 0.99; it changes its cluster sizes in eval mode too."""
    config = CodebookConfig(ema_decay=0.99, revival="none")
    codebook = Codebook(*weight.shape)
    codebook.vectors.copy_(torch.from_numpy(weight))
    codebook.cluster_size.copy_(torch.from_numpy(cluster_size))
    tokens = torch.from_numpy(z).requires_grad_()  # (B, N, d)
    chosen = codebook.quantize(tokens)
    vectors = codebook.vectors[chosen.codes]
    loss = commitment_loss(chosen.embedding, vectors, torch.ones(tokens.shape[:2], dtype=torch.bool))
    (loss + (chosen.quantized * torch.from_numpy(weights)).mean()).backward()
    flat = chosen.codes.flatten()
    if train:
        codebook.update(chosen.embedding.flatten(0, 1), flat, config, torch.Generator())
    else:
        counts = torch.bincount(flat, minlength=codebook.num_codes).float()
        codebook.cluster_size.copy_(moving_average(codebook.cluster_size, counts, config.ema_decay))
    assert tokens.grad is not None
    result = {"zq": chosen.quantized, "loss": loss, "idx": flat, "grad_z": tokens.grad}
    result |= {"weight": codebook.vectors, "cluster_size": codebook.cluster_size}
    return {key: value.detach().numpy() for key, value in result.items()}


def kmeans(samples: Array, num_clusters: int, num_iterations: int) -> tuple[Array, Array]:
    """Cosine k-means from the first samples."""
    rows = torch.from_numpy(samples)
    means, counts = cosine_kmeans(rows, rows[:num_clusters], num_iterations)
    return means.numpy(), counts.numpy()
