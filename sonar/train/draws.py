"""Random draws of one step, which depend on nothing that came before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def step_generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A generator that depends on nothing but its arguments, so that a resumed step draws the same."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4096 + stream)


@contextmanager
def dropout_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Dropout and layer drop know the global generator only: seed it for one step, then give it back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield
