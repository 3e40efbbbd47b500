"""A tiny base and batches of it: what the tests of the objectives share."""

import numpy as np
import pytest
from tiny import CLIP_SECONDS, make_base, make_mixture

from sonar.checkpoint import Checkpoint
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream, Source, StreamConfig


@pytest.fixture
def base() -> Checkpoint:
    return make_base()


@pytest.fixture(scope="module")
def stream() -> MixedStream:
    mixture = make_mixture(6)
    config = StreamConfig(batch_size=4, clip_seconds=CLIP_SECONDS, replay_ratio=0.5, seed=0)
    rows = np.arange(6)
    return MixedStream(Source(mixture.new, rows), Source(mixture.prior, rows), config)


@pytest.fixture
def batch(stream: MixedStream) -> Batch:
    """Clips of which some end early."""
    batch = stream.batch(0)
    assert batch.padding.any() and not batch.padding.all(1).any()
    return batch
