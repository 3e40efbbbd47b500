"""Which domains make a sequence, and what each of its stages rehearses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sonar.search import sequence
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


@pytest.mark.parametrize("replay_domains", [False, True])
def test_a_stage_rehearses_the_prior_corpora_and_if_asked_the_domains_before_it(
    replay_domains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shard(sides: Sequence[list[str]], *arguments: object) -> list[Path]:
        return [Path("+".join(clips)) for clips in sides]

    monkeypatch.setattr(sequence, "load_domain", lambda name, *arguments: [name])
    monkeypatch.setattr(sequence, "load_prior", lambda *arguments: ["general"])
    monkeypatch.setattr(sequence, "shard_corpora", shard)
    plan = SequencePlan(domains=tuple(map(Domain, ("bio", "music", "env"))), replay_domains=replay_domains)
    audio = sequence._prepare_audio(plan, Path("cache"), lambda line: None)
    assert list(map(str, audio.domains)) == ["bio", "music", "env"]
    with_domains = ["general", "general+bio", "general+bio+music"]
    assert list(map(str, audio.replay)) == (with_domains if replay_domains else ["general"] * 3)
