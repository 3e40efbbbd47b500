"""What names a model: a hash of all that its outputs depend on."""

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module, config: str) -> str:
    """Hex digest of a model's configuration, as a text, and of the names, shapes and bytes of its tensors."""
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
