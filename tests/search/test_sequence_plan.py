"""Which domains make a sequence, and what each of its stages rehearses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sonar.experiment import TrialConfig
from sonar.search import sequence
from sonar.search.prepare import Prepared
from sonar.search.sequence import Domain, SequencePlan, run_sequence


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bio"], "a sequence has two domains or more, not 1; for one there is `sonar adapt`"),
        (["bio", "music", "bio"], "the domains bio, music, bio must have different names"),
        (["bio", "base"], "no domain can be called base, as stage 0 is; give another name"),
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


def test_a_base_that_knows_nothing_of_a_task_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = sequence._Audio([Path("bio"), Path("music")], [Path("general")] * 2)
    prepared = Prepared("new", "prior", "base", "baseline", "embeddings")
    monkeypatch.setattr(sequence, "_prepare_audio", lambda *arguments: audio)
    monkeypatch.setattr(sequence, "_find_tasks", lambda audio: ([], ()))
    monkeypatch.setattr(sequence, "prepare_shards", lambda *arguments: prepared)
    monkeypatch.setattr(sequence._Scorer, "random", lambda *arguments: {"birds": 5.0})
    monkeypatch.setattr(sequence._Scorer, "checkpoint", lambda *arguments: {"general": 40.0, "birds": 0.0})
    monkeypatch.setattr(sequence, "run_trial", None)  # calling it would be another error
    plan = SequencePlan(domains=(Domain("bio"), Domain("music")))
    with pytest.raises(ValueError, match=r"the base scores 0.0 on a task, so no share of it can be stated"):
        run_sequence(TrialConfig(), plan, tmp_path, tmp_path, lambda line: None)
