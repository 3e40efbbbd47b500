"""Transformer layers that torch.compile has fused, while it is asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial

import torch
from torch import Tensor, nn

MOST_GRAPHS = 64  # of one kind of layer; what comes after them runs as it is

_wanted: ContextVar[bool] = ContextVar("layers are to be compiled", default=False)


@contextmanager
def layers_compiled(wanted: bool = True) -> Iterator[None]:
    """Within it, where `wanted`, the layers of every `Transformer` run compiled."""
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def compiled_where_wanted(layer: nn.Module) -> Callable[..., Tensor]:
    """The layer; within `layers_compiled` as one compiled function that all layers of its kind share.

    Sizes are symbolic, as the patches that a clip shows and hides are of another number in nearly every step.
    """
    return partial(_compiled(type(layer).forward), layer) if _wanted.get() else layer


@cache
def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    return torch.compile(forward, dynamic=True)


def check_compiler(device: torch.device) -> None:
    """Raise ValueError where nothing can be compiled for `device`."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ValueError(
            f"layers cannot be compiled: there is no C++ compiler {compiler!r}. Install it, name another one in the "
            "environment variable CXX, or set training.compile_layers=false"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ValueError(
            "layers cannot be compiled for a GPU: triton is not installed. Install torch's CUDA build, which brings "
            "it, or set training.compile_layers=false"
        )
