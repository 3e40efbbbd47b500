"""How fast N workers train, from the parts of a step that were measured with one and two (pure; torch is not needed).

Assumed, not measured: workers do not slow each other down but by the exchange of gradients; that goes around a ring in
buckets, one after the other; what is hidden of it behind the backward pass is the share that was measured, at most the
backward pass; no worker straggles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

BUCKET_BYTES = 25 * 2**20  # of DistributedDataParallel; its first one is smaller
BACKWARD = 2 / 3  # of a step's computing: two products of matrices for each of the forward pass
SMALL_EXCHANGES = 2  # of a step's counts and of its losses


class Parts(NamedTuple):
    """What a step of one worker is made of.

    Attributes:
        compute_s: forward, backward and the optimiser, seconds.
        input_s: making a batch, which goes on beside the step before, seconds.
        gradient_bytes: of all trained parameters.
        hidden: share of the exchange that does not lengthen the step, in [0, 1].
    """

    compute_s: float
    input_s: float
    gradient_bytes: float
    hidden: float


class Network(NamedTuple):
    """What joins two neighbours of the ring.

    Attributes:
        bytes_per_s: in each direction at once.
        latency_s: of one message, seconds.
    """

    bytes_per_s: float
    latency_s: float


def exchange_seconds(num_workers: int, num_bytes: float, network: Network, num_exchanges: int = 1) -> float:
    """Of an all-reduce around a ring: 2 (N - 1) messages of 1/N of the bytes each, in so many exchanges."""
    messages = 2 * (num_workers - 1)
    return messages * (num_bytes / num_workers / network.bytes_per_s + num_exchanges * network.latency_s)


def step_seconds(num_workers: int, parts: Parts, network: Network) -> float:
    """Of a step of N workers, each of which takes a batch as large as the one of `parts`."""
    buckets = 1 + math.ceil(parts.gradient_bytes / BUCKET_BYTES)
    gradients = exchange_seconds(num_workers, parts.gradient_bytes, network, buckets)
    hidden = min(parts.hidden * gradients, BACKWARD * parts.compute_s)
    small = exchange_seconds(num_workers, 0, network, SMALL_EXCHANGES)
    return max(parts.input_s, parts.compute_s + gradients - hidden + small)


def efficiency(num_workers: int, parts: Parts, network: Network) -> float:
    """Throughput of N workers as a share of N times that of one."""
    return step_seconds(1, parts, network) / step_seconds(num_workers, parts, network)
