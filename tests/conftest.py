"""What every test has: few examples of hypothesis without a deadline, and torch on one thread."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start
settings.register_profile("sonar", deadline=None, max_examples=25)
settings.load_profile("sonar")


@pytest.fixture(autouse=True, scope="session")
def torch_on_one_thread() -> Iterator[None]:
    """Only where a test module has imported torch: a test of the configuration need not wait for it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def root() -> Path:
    """Of the repository."""
    return Path(__file__).resolve().parents[1]
