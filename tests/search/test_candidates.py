"""Which checkpoints are kept, against the definition, after any sequence of events."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_sweep import SETTINGS, metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.search.candidate_folders import CANDIDATE_FILE, FOLDER
from sonar.search.candidates import claimed_checkpoints, to_discard
from sonar.search.journal import Journal, read_journal, replay
from sonar.search.records import CandidateKey
from sonar.search.results import Ranked, front, ranked_candidates, ranked_trials
from sonar.search.retention import Retention, take_offers

TRIALS = ("a", "b", "c")
Axes = tuple[float, float, float]  # plasticity, forgetting, its upper bound
values = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)).map(
    lambda drawn: (float(drawn[0]), float(drawn[1]), float(drawn[1] + drawn[2]))
)
happenings = st.lists(
    st.tuples(st.sampled_from(TRIALS), st.sampled_from(["point", "point", "alpha", "end", "prune", "crash"]), values),
    max_size=14,
)


def dominates(a: Axes, b: Axes, forgetting: int = 1) -> bool:
    """By the measured forgetting, or by its bound at 2."""
    better = a[0] > b[0] or a[forgetting] < b[forgetting]
    return a[0] >= b[0] and a[forgetting] <= b[forgetting] and better


def numbers(axes: Axes) -> dict[str, float]:
    return {**metrics(*axes[:2]), "forgetting_rate_low": -9.0, "forgetting_rate_high": axes[2]}


class Scored(NamedTuple):
    """What the brute force knows of an encoder; `weights` is the folder that it is computed from."""

    trial: str
    step: int
    axes: Axes
    weights: Path
    alpha: float = 1.0

    def stands_for(self, other: "Scored") -> bool:
        """Of two with equal numbers: fewer steps, then the trained one, then the name."""
        order = [(one.step, -one.alpha, one.trial) for one in (self, other)]
        return self.axes == other.axes and order[0] < order[1]


class Sweep:
    """Trials as they look from their folders, a driver over them, and what a reader of the definition would keep."""

    def __init__(self, folder: Path, *, keep_all: bool = False) -> None:
        self.folder, self.keep_all = folder.resolve(), keep_all
        self.scored: list[Scored] = []
        self.steps, self.ended = dict.fromkeys(TRIALS, 0), dict.fromkeys(TRIALS, False)
        self.open()
        self.journal.append("sweep_created", **SETTINGS)
        for name in TRIALS:
            self.journal.append("suggested", trial_id=name, kind="search", params={})

    def open(self) -> None:
        self.journal = Journal(self.folder / "journal.jsonl")
        self.retention = Retention(self.journal, self.folder, keep_all=self.keep_all)
        self.retention.clean()

    def happen(self, name: str, what: str, axes: Axes) -> None:
        if what == "crash":
            self.journal.close()
            self.open()
        elif not self.ended[name]:
            getattr(self, what)(name, axes)
        self.retention.update()

    def point(self, name: str, axes: Axes) -> None:
        self.steps[name] += 10
        folder = self.offer(name, f"step-{self.steps[name]:06d}", 1.0, axes)
        self.weigh(folder / "checkpoint", name, axes)
        take_offers(self.journal, name, self.trial(name))

    def end(self, name: str, axes: Axes) -> None:
        self.steps[name] += 10
        self.weigh(self.trial(name) / "checkpoint", name, axes)
        told = {**numbers(axes), "model/steps": self.steps[name]}
        take_offers(self.journal, name, self.trial(name))
        self.journal.append("told", trial_id=name, metrics=told, checkpoint=str(self.trial(name) / "checkpoint"))
        self.ended[name] = True

    def alpha(self, name: str, axes: Axes) -> None:
        """A trial that ends with one point on the line to the base, as plastic as drawn; the end itself is poor."""
        step = self.steps[name] + 10
        self.offer(name, f"step-{step:06d}-alpha-0.5", 0.5, axes)
        self.scored.append(Scored(name, step, axes, self.trial(name) / "checkpoint", 0.5))
        self.end(name, (0.0, 4.0, 4.0))

    def prune(self, name: str, axes: Axes) -> None:
        self.journal.append("pruned", trial_id=name, reason="dominated")
        self.ended[name] = True

    def trial(self, name: str) -> Path:
        return self.folder / "trials" / name

    def offer(self, name: str, place: str, alpha: float, axes: Axes) -> Path:
        step = int(place.split("-")[1])
        folder = self.trial(name) / FOLDER / place
        (folder / "evaluation").mkdir(parents=True)
        (folder / CANDIDATE_FILE).write_text(json.dumps({"step": step, "alpha": alpha, "metrics": numbers(axes)}))
        return folder

    def weigh(self, checkpoint: Path, name: str, axes: Axes) -> None:
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(b"weights")
        self.scored.append(Scored(name, self.steps[name], axes, checkpoint))

    def expected(self) -> set[Path]:
        """Weights of what nothing dominates, and of the latest of a trial that runs."""
        best = {scored.weights for scored in self.best()}
        return best | {s.weights for s in self.scored if not self.ended[s.trial] and s.step == self.steps[s.trial]}

    def best(self) -> list[Scored]:
        """What nothing beats by the measured forgetting, or what nothing beats by its bound; one for all its equals."""
        every = [scored.axes for scored in self.scored]
        best = [s for s in self.scored if any(not any(dominates(o, s.axes, by) for o in every) for by in (1, 2))]
        return [one for one in best if not any(other.stands_for(one) for other in best)]

    def on_disk(self) -> set[Path]:
        return {file.parent for file in (self.folder / "trials").rglob("*.safetensors")}


@settings(max_examples=60)
@given(happenings)
def test_no_checkpoint_on_the_front_is_ever_deleted_and_everything_else_is(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[str, str, Axes]]
) -> None:
    sweep = Sweep(tmp_path_factory.mktemp("kept"))
    for event in happened:
        sweep.happen(*event)
        assert sweep.on_disk() == sweep.expected()
        state = sweep.journal.state
        assert claimed_checkpoints(state) == {str(path) for path in sweep.expected()}
        assert not to_discard(state)
        assert {Path(r.candidate.checkpoint or "") for r in front(state)} <= sweep.on_disk()
    sweep.journal.close()
    assert replay(read_journal(sweep.folder / "journal.jsonl")).candidates == sweep.journal.state.candidates


@settings(max_examples=25)
@given(happenings)
def test_the_front_is_what_no_scored_encoder_dominates_deleted_ones_included(
    tmp_path_factory: pytest.TempPathFactory, happened: list[tuple[str, str, Axes]]
) -> None:
    sweep = Sweep(tmp_path_factory.mktemp("front"))
    for event in happened:
        sweep.happen(*event)
    state = sweep.journal.state
    every = [scored.axes for scored in sweep.scored]

    def axes(members: list[Ranked]) -> list[Axes]:
        return sorted((*ranked.point[1:3], ranked.point.bound) for ranked in members)

    assert axes(front(state)) == sorted(scored.axes for scored in sweep.best())
    assert axes(ranked_candidates(state)) == sorted(every)
    undominated = sorted({a for a in every if not any(dominates(other, a) for other in every)})
    assert axes([ranked for ranked in front(state) if ranked.rank == 1]) == undominated
    for ranked in ranked_trials(state):
        own = [r.rank for r in ranked_candidates(state) if r.record.trial_id == ranked.record.trial_id]
        assert ranked.rank == min(own)
    sweep.journal.close()


@pytest.fixture
def sweep(tmp_path: Path) -> Any:
    made = Sweep(tmp_path / "sweep")
    yield made
    made.journal.close()


def test_a_driver_that_dies_after_it_wrote_and_before_it_deleted_is_cleaned_up_after(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.happen("a", "point", (1.0, 2.0, 2.0))
    with monkeypatch.context() as patch:
        patch.setattr("sonar.search.retention.remove", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sweep.happen("a", "point", (2.0, 1.0, 1.0))
    assert sweep.journal.state.candidates[CandidateKey("a", 10, 1.0)].discarded == "dominated by a step 20"
    assert sweep.on_disk() > sweep.expected()
    sweep.happen("a", "crash", (0.0, 0.0, 0.0))
    assert sweep.on_disk() == sweep.expected()
    assert not list(sweep.trial("a").rglob("evaluation"))[1:]


def test_of_equal_candidates_the_one_of_fewest_steps_stands_for_all(sweep: Sweep) -> None:
    equal = (1.0, 1.0, 2.0)
    sweep.happen("b", "point", equal)
    sweep.happen("b", "point", equal)
    sweep.happen("b", "end", equal)
    sweep.happen("a", "point", (1.0, 1.0, 3.0))  # the same rate, not the same bound
    sweep.happen("a", "end", equal)
    state = sweep.journal.state
    assert [ranked.candidate.key for ranked in front(state)] == [CandidateKey("a", 10, 1.0), CandidateKey("b", 10, 1.0)]
    assert state.candidates[CandidateKey("a", 20, 1.0)].discarded == "equal to b step 10"


def test_a_candidate_without_weights_stands_for_none_that_has_some(sweep: Sweep) -> None:
    sweep.journal.append("told", trial_id="a", metrics=numbers((1.0, 1.0, 2.0)), checkpoint=None)
    sweep.happen("b", "end", (1.0, 1.0, 2.0))
    assert [ranked.candidate.key.trial_id for ranked in front(sweep.journal.state)] == ["b"]


def test_what_a_trial_left_without_a_word_is_found_when_it_is_looked_at(sweep: Sweep) -> None:
    """The driver died between the trial's folder and the journal: the resumed trial brings it up again."""
    folder = sweep.offer("a", "step-000010", 1.0, (1.0, 1.0, 1.0))
    sweep.weigh(folder / "checkpoint", "a", (1.0, 1.0, 1.0))
    sweep.happen("a", "crash", (0.0, 0.0, 0.0))
    assert not sweep.journal.state.candidates
    take_offers(sweep.journal, "a", sweep.trial("a"))
    take_offers(sweep.journal, "a", sweep.trial("a"))
    assert list(sweep.journal.state.candidates) == [CandidateKey("a", 10, 1.0)]


def test_a_candidate_that_is_not_finite_is_none(sweep: Sweep) -> None:
    sweep.point("a", (float("nan"), 1.0, 1.0))
    assert not sweep.journal.state.candidates
    sweep.prune("a", (0.0, 0.0, 0.0))
    sweep.retention.update()
    assert not sweep.on_disk()  # nobody could take it


def test_what_an_ended_trial_would_be_resumed_from_goes_and_only_then(sweep: Sweep) -> None:
    for name in ("a", "b"):
        sweep.trial(name).mkdir(parents=True, exist_ok=True)
        (sweep.trial(name) / "state.pt").write_bytes(b"state")
        (sweep.trial(name) / "train").mkdir()
    sweep.happen("a", "prune", (0.0, 0.0, 0.0))
    assert not list(sweep.trial("a").iterdir())
    assert {path.name for path in sweep.trial("b").iterdir()} == {"state.pt", "train"}


def test_on_request_everything_is_kept(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", keep_all=True)
    for axes in ((1.0, 2.0, 2.0), (2.0, 1.0, 1.0), (0.0, 3.0, 3.0)):
        sweep.happen("a", "point", axes)
    sweep.happen("a", "end", (0.0, 4.0, 4.0))
    assert sweep.on_disk() == {scored.weights for scored in sweep.scored} and len(front(sweep.journal.state)) == 1
    sweep.journal.close()


def test_a_checkpoint_that_lies_elsewhere_is_never_deleted(sweep: Sweep, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    inside = sweep.folder / "trials" / "a" / "link"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(elsewhere)
    for name, checkpoint in (("a", inside), ("b", elsewhere), ("c", sweep.folder / "trials" / "a" / ".." / "..")):
        sweep.journal.append(
            "told", trial_id=name, metrics=metrics(float(TRIALS.index(name)), 1.0), checkpoint=str(checkpoint)
        )
    sweep.retention.update()
    sweep.journal.append("suggested", trial_id="d", kind="search", params={})
    sweep.journal.append("told", trial_id="d", metrics=metrics(9.0, 0.0), checkpoint=None)
    sweep.retention.update()
    assert not claimed_checkpoints(sweep.journal.state)
    assert elsewhere.is_dir() and inside.is_symlink() and sweep.folder.is_dir()


def test_a_repeat_has_no_point_of_its_own(sweep: Sweep) -> None:
    sweep.happen("a", "end", (1.0, 1.0, 1.0))
    sweep.journal.append("suggested", trial_id="r", kind="reeval", params={})
    sweep.journal.append("told", trial_id="r", metrics=metrics(4.0, 0.0), checkpoint=None)
    sweep.retention.update()
    assert [r.record.trial_id for r in ranked_candidates(sweep.journal.state)] == ["a"]
    assert "a repeat" in (sweep.journal.state.candidates[CandidateKey("r", 0, 1.0)].discarded or "")


def test_a_checkpoint_that_the_front_needs_under_another_name_stays(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(sweep.folder)
    sweep.happen("a", "alpha", (4.0, 0.0, 0.0))
    key = CandidateKey("a", 10, 1.0)
    state = sweep.journal.state
    assert state.candidates[key].discarded and sweep.on_disk()
    linked = str(tmp_path / "link" / "trials" / "a" / "checkpoint")
    state.candidates[key] = state.candidates[key]._replace(checkpoint=linked)
    sweep.retention.clean()
    assert sweep.on_disk() == {sweep.trial("a") / "checkpoint"}
