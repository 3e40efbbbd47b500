"""What tests of a sweep's commands share."""

from collections.abc import Callable

import pytest


@pytest.fixture
def sonar(run_sonar: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """`run_sonar`, by the name of the command."""
    return run_sonar
