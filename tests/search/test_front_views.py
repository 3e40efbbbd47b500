"""Whatever shows a front or a pick shows the same one, candidates on the way and between base and end included."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_candidates import BASE, RESAMPLING, write_candidates
from test_report import Page

from sonar.evaluate.axis_intervals import AxisResamples, known_intervals
from sonar.evaluate.bootstrap import Interval
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.figures import front_figure
from sonar.report import write_report
from sonar.search.candidates import describe_place
from sonar.search.records import CandidateKey
from sonar.search.results import Choice, front, pick, picked, ranked_candidates, ranked_trials
from sonar.search.snapshot import snapshot
from sonar.search.state import SweepState
from sonar.search.uncertainty import front_draws


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("views") / "runs" / "bio"


@pytest.fixture(scope="module")
def state(folder: Path) -> SweepState:
    return write_candidates(folder)


def keys(rows: list[dict[str, Any]]) -> list[CandidateKey]:
    return [CandidateKey(row["trial_id"], int(row["step"]), float(row["alpha"])) for row in rows]


def test_the_made_up_front_has_points_of_every_sort(state: SweepState) -> None:
    sorts = {(key.alpha < 1, key.step < 60) for *_, candidate in front(state) for key in [candidate.key]}
    assert sorts == {(False, False), (False, True), (True, False)}
    assert any(candidate.discarded for candidate in state.candidates.values())
    assert any(ranked.rank > 1 for ranked in front(state)), "none is on it for its bound alone"


def test_the_table_the_json_the_csv_the_page_the_figure_and_mlflow_show_one_front(
    state: SweepState, folder: Path, sonar: Any, tmp_path: Path
) -> None:
    members = [ranked.candidate.key for ranked in front(state)]
    chosen = picked(state)
    assert chosen in members
    status, out, _ = sonar("front", "show", folder, "--json")
    shown = json.loads(out)
    assert status == 0 and keys(shown) == members
    assert [row["pick"] for row in shown] == [key == chosen for key in members]
    page = Page(write_report(state, tmp_path).read_text(encoding="utf-8"))
    with (tmp_path / "front.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert keys(rows) == members and [row["pick"] == "1" for row in rows] == [key == chosen for key in members]
    for row, ranked in zip(rows, front(state), strict=True):
        ends = {name: float(value) for name, value in row.items() if name.endswith(("_low", "_high"))}
        assert known_intervals(ends) == ranked.point[3:]
    marked = [attrs for tag, attrs in page.tags if tag == "tr" and attrs.get("data-candidate")]
    assert [attrs["data-candidate"] for attrs in marked] == [ranked.point.name for ranked in front(state)]
    assert [attrs.get("class") == "pick" for attrs in marked] == [key == chosen for key in members]
    traces = {trace.name: trace for trace in front_figure(state).data if trace.name}
    drawn = [(x, y) for n in ("dominated", "front", "anchor") for x, y in zip(traces[n].x, traces[n].y, strict=True)]
    assert sorted(drawn) == sorted(
        (ranked.point.forgetting_rate, ranked.point.plasticity) for ranked in ranked_candidates(state)
    )
    on_front = [ranked.point for ranked in front(state) if ranked.record.kind != "anchor"]
    assert sorted(zip(traces["front"].x, traces["front"].y, strict=True)) == sorted(
        (point.forgetting_rate, point.plasticity) for point in on_front
    )
    star, (low, high) = traces["pick"], pick(state)[0].point.forgetting_interval or (0.0, 0.0)
    assert (star.x[0] - star.error_x.arrayminus[0], star.x[0] + star.error_x.array[0]) == pytest.approx((low, high))
    tags = {record.key: record.tags for record in snapshot(state, finished=True).trials}
    on_front: dict[str, list[str]] = {}
    for key in members:
        on_front.setdefault(key.trial_id, []).append(describe_place(key))
    assert {k: tag["pareto.front"].split(", ") for k, tag in tags.items() if "pareto.front" in tag} == on_front
    assert {key: tag["pareto.pick"] for key, tag in tags.items() if "pareto.pick" in tag} == {
        chosen.trial_id: describe_place(chosen)
    }
    assert {key: int(tag["pareto.rank"]) for key, tag in tags.items()} == {
        ranked.record.trial_id: ranked.rank for ranked in ranked_trials(state)
    }


def test_a_checkpoint_is_named_where_it_is_on_the_disk_and_nowhere_else(state: SweepState, tmp_path: Path) -> None:
    write_report(state, tmp_path)
    with (tmp_path / "trials.csv").open(newline="", encoding="utf-8") as file:
        named = {row["trial_id"]: row["checkpoint"] for row in csv.DictReader(file)}
    tags = {record.key: record.tags["checkpoint"] for record in snapshot(state, finished=True).trials}
    places = {trial_id: record.checkpoint or "" for trial_id, record in state.trials.items()}
    assert named == tags == {trial: place if Path(place).is_dir() else "" for trial, place in places.items()}
    assert "" in named.values() and set(named.values()) != {""}


@pytest.mark.parametrize(
    "options", [(), ("--limit", "8"), ("--rule", "weights", "--weight", "1"), ("--rule", "contribution")]
)
def test_the_command_picks_what_the_rule_picks_and_gives_the_paragraph(
    state: SweepState, folder: Path, sonar: Any, options: tuple[str, ...]
) -> None:
    given = dict(zip(options[::2], options[1::2], strict=True))
    numbers = {name: float(given[f"--{name}"]) for name in ("limit", "weight") if f"--{name}" in given}
    ranked, chosen = pick(state, Choice(given.get("--rule", "epsilon"), **numbers))
    status, out, _ = sonar("front", "pick", folder, *options)
    assert status == 0 and chosen.explanation in out and f"checkpoint: {ranked.candidate.checkpoint}" in out
    status, out, _ = sonar("front", "pick", folder, *options, "--json")
    shown = json.loads(out)
    assert keys([shown]) == [ranked.candidate.key] and shown["explanation"] == chosen.explanation
    assert keys(shown["runners_up"]) == [front(state)[index].candidate.key for index in chosen.runners_up]


def test_the_knee_is_judged_by_the_predictions_that_the_front_left(
    state: SweepState, folder: Path, sonar: Any, tmp_path: Path
) -> None:
    members = front(state)
    draws = front_draws(folder, members, RESAMPLING)
    assert draws.shape == (RESAMPLING.num, len(members), 2)
    for number, ranked in enumerate(members):  # the same draws as those behind the journal's intervals
        for axis, interval in enumerate((ranked.point.plasticity_interval, ranked.point.forgetting_interval)):
            assert interval == pytest.approx(np.quantile(draws[:, number, axis], (0.025, 0.975)))
    status, out, err = sonar("front", "pick", folder, "--rule", "knee")
    assert (status == 0 and "is the knee in" in out) or (status == 2 and "the knee is not stable" in err)
    moved = tmp_path / "bio"
    moved.mkdir()
    (moved / "journal.jsonl").write_bytes((folder / "journal.jsonl").read_bytes())
    status, _, err = sonar("front", "pick", moved, "--rule", "knee")
    assert status == 2 and "no evaluation in" in err


def test_an_interval_is_that_of_the_paired_difference_to_the_base(folder: Path, state: SweepState) -> None:
    resamples = AxisResamples(BASE, RESAMPLING)
    assert resamples.intervals(BASE) == (Interval(0.0, 0.0), Interval(0.0, 0.0))
    (end,) = [r for r in ranked_candidates(state) if r.point.name == "trial-002"]
    scored = read_evaluation(split_folder(folder / "trials" / "trial-002", "dev"))
    assert (end.point.plasticity_interval, end.point.forgetting_interval) == resamples.intervals(scored)
    low, high = resamples.intervals(scored).forgetting_rate or (0.0, 0.0)
    assert low < end.point.forgetting_rate < high


def test_a_base_that_scores_nothing_in_a_resample_leaves_the_bounds_unknown() -> None:
    (target, prior) = BASE.results
    never_true = -1.0 * prior.predictions.truth
    hopeless = prior._replace(predictions=prior.predictions._replace(scores=never_true))
    resamples = AxisResamples(BASE._replace(results=(target, hopeless)), RESAMPLING)
    assert not resamples.has_intervals and resamples.intervals(BASE) == (None, None)
    assert resamples.intervals(BASE).metrics() == {} and known_intervals({"plasticity_low": 1.0}) == (None, None)
