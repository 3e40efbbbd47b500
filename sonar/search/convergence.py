"""The rule by which a search has come to rest."""

import math
import re
from dataclasses import dataclass

from sonar.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """When a search has come to rest.

    Attributes:
        num_trials: told trials, the last ones, that must have brought next to nothing.
        gain_percent: of the hypervolume before them; less than this is next to nothing.
    """

    num_trials: int
    gain_percent: float = 1.0

    def __post_init__(self) -> None:
        if type(self.num_trials) is not int or self.num_trials < 1:
            raise ConfigError(f"converge.num_trials: got {self.num_trials!r}; allowed: 1 or more")
        if not 0 < self.gain_percent < math.inf:
            raise ConfigError(f"converge.gain_percent: got {self.gain_percent!r}; allowed: a number above 0, percent")


def parse_convergence(text: str) -> Convergence:
    """The rule written as TRIALS:PERCENT, as in `8:1`.

    Raises:
        ConfigError: it is not written so.
    """
    found = re.fullmatch(r"(\d+):(\d+\.?\d*)", text)
    if found is None:
        raise ConfigError(f"converge: got {text!r}; allowed: TRIALS:PERCENT, as in 8:1")
    return Convergence(num_trials=int(found[1]), gain_percent=float(found[2]))
