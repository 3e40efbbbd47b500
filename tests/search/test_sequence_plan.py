"""Which domains make a sequence."""

import pytest

from sonar.search.sequence import Domain, SequencePlan


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bio"], "a sequence has two domains or more, not 1; for one there is `sonar adapt`"),
        (["bio", "music", "bio"], "the domains bio, music, bio must have different names"),
        (["bio", "../music"], "domain name '../music': give letters, digits, _ and - only"),
    ],
)
def test_a_plan_that_is_no_sequence_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequencePlan(domains=tuple(Domain(name) for name in names))
