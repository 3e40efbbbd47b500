"""The report stands alone, tells the journal's numbers, and takes no name at its word."""

import csv
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sonar.report import front_figure, parallel_figure, write_report
from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.results import pick, ranked_trials

EVIL = "<script>alert(1)</script><img src=http://evil/x onerror=alert(2)>\"'&"


@pytest.fixture
def state(tmp_path: Path) -> SweepState:
    points = [(6.1234567890123, 0.2), (8.0, 7.5), (3.0, 1 / 3), (5.0, 4.999), (-1.0, 9.0)]
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(
            "sweep_created",
            name="bio",
            domain=f"bio{EVIL}",
            config={"note": EVIL},
            space={"weight": {"type": "LogUniform", "low": 1e-3, "high": 10}, "kind": {"type": "Choice"}},
            objectives={"plasticity": "max", "forgetting_rate": "min"},
            forgetting_limit=5.0,
            seed=0,
        )
        for name, (plasticity, forgetting) in {"base": (0.0, 0.0), "dcpt": (7.0, 12.5)}.items():
            journal.append("suggested", trial_id=name, kind="anchor", name=name, params={})
            metrics = {"plasticity": plasticity, "forgetting_rate": forgetting}
            journal.append("told", trial_id=name, metrics=metrics, checkpoint=None)
        for index, (plasticity, forgetting) in enumerate(points):
            params = {"weight": 10.0 ** (index - 3), "kind": "knn" if index % 2 else EVIL}
            name = EVIL if index == 0 else f"trial {index}"
            journal.append("suggested", trial_id=f"t{index}", kind="search", name=name, params=params)
            metrics = {
                "plasticity": plasticity,
                "forgetting_rate": forgetting,
                "codebook/perplexity": 3.3 + index,
            }
            journal.append("told", trial_id=f"t{index}", metrics=metrics, checkpoint=f"runs/t{index}")
        journal.append("suggested", trial_id="bad", kind="search", params={"weight": 1.0, "kind": "knn"})
        journal.append("failed", trial_id="bad", reason=f"loss is nan {EVIL}")
    return replay(read_journal(tmp_path / "journal.jsonl"))


class Page(HTMLParser):
    """Tags outside the scripts, and the table as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[str]] = {}
        self.text = ""
        self._row: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "tr" and given.get("data-trial"):
            self._row = self.rows[given["data-trial"] or ""] = []
        if tag == "td":
            self._row.append(given.get("data-value") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_nothing_from_anywhere(state: SweepState, tmp_path: Path) -> None:
    for name in ("report.html", "front.html"):
        write_report(state, tmp_path / "out")
        page = Page((tmp_path / "out" / name).read_text(encoding="utf-8"))
        for tag, attrs in page.tags:
            assert not {"src", "srcset", "data", "action"} & attrs.keys(), tag
            assert tag not in ("link", "iframe", "object", "embed", "form", "base")
        policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "content" in attrs)
        assert policy is not None and policy.startswith("default-src 'none'") and "http" not in policy


def test_hostile_names_stay_text(state: SweepState, tmp_path: Path) -> None:
    page_text = write_report(state, tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page_text
    assert "<img src=http" not in page_text
    page = Page(page_text)
    assert not [tag for tag, attrs in page.tags if tag == "img" or "onerror" in attrs]
    assert page.text.count(EVIL) >= 3  # readable in the table, the pick and the settings


FIRST = ("plasticity", "forgetting_rate", "forgetting_worst")


def test_the_tables_numbers_are_the_journals(state: SweepState, tmp_path: Path) -> None:
    page = Page(write_report(state, tmp_path).read_text(encoding="utf-8"))
    assert set(page.rows) == set(state.trials)
    for trial_id, cells in page.rows.items():
        record = state.trials[trial_id]
        numbers = [float(cell) for cell in cells if cell]
        first = [record.metrics[name] for name in FIRST if name in record.metrics]
        rest = [value for name, value in record.metrics.items() if name not in FIRST]
        expected = [*first, *(v for v in record.params.values() if isinstance(v, float)), *rest]
        ranks = {r.record.trial_id: r.rank for r in ranked_trials(state)}
        assert numbers == [*([ranks[trial_id]] if trial_id in ranks else []), *expected]


def test_the_page_gives_the_pick_with_its_reasons(state: SweepState, tmp_path: Path) -> None:
    page = Page(write_report(state, tmp_path).read_text(encoding="utf-8"))
    ranked, chosen = pick(state)
    assert ranked.record.trial_id == "t0"
    assert chosen.explanation in page.text
    marked = [attrs["data-trial"] for tag, attrs in page.tags if tag == "tr" and attrs.get("class") == "pick"]
    assert marked == ["t0"]


def test_the_fronts_csv_is_the_front(state: SweepState, tmp_path: Path) -> None:
    write_report(state, tmp_path)
    with (tmp_path / "front.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    front = {r.record.trial_id: r for r in ranked_trials(state) if r.rank == 1}
    assert {row["trial_id"] for row in rows} == set(front)
    for row in rows:
        assert float(row["plasticity"]) == front[row["trial_id"]].point.plasticity
        assert float(row["forgetting_rate"]) == front[row["trial_id"]].point.forgetting_rate
    assert [row["trial_id"] for row in rows if row["pick"] == "1"] == ["t0"]


def test_the_figure_draws_every_told_trial_once_and_marks_anchors_limit_and_pick(state: SweepState) -> None:
    figure = front_figure(state)
    traces = {trace.name: trace for trace in figure.data if trace.name}
    drawn = [
        point for name in ("dominated", "front", "anchor") for point in zip(traces[name].x, traces[name].y, strict=True)
    ]
    told = [record.metrics for record in state.trials.values() if record.status == "told"]
    assert sorted(drawn) == sorted((m["forgetting_rate"], m["plasticity"]) for m in told)
    assert list(traces["anchor"].text) == ["base", "dcpt"]
    assert list(traces["pick"].x) == [0.2]
    assert figure.layout.shapes[0].x0 == 5.0


def test_parallel_lines_lie_between_zero_and_one_whatever_the_values(state: SweepState) -> None:
    figure = parallel_figure(state)
    assert figure is not None
    assert len(figure.data) == 5
    heights = [height for trace in figure.data for height in trace.y]
    assert all(0 <= height <= 1 and math.isfinite(height) for height in heights)
    assert [trace.y[0] for trace in figure.data] == pytest.approx([0, 0.25, 0.5, 0.75, 1])  # log scale


def test_a_sweep_without_results_has_a_report_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "config": {},
        "space": {},
        "objectives": {"plasticity": "max", "forgetting_rate": "min"},
        "seed": 0,
        "forgetting_limit": 5.0,
    }
    text = write_report(SweepState(settings=settings), tmp_path / "new" / "folder").read_text(encoding="utf-8")
    assert "No pick: there are no points to pick from" in text
    assert (tmp_path / "new" / "folder" / "front.csv").read_text().count("\n") == 1


@pytest.mark.slow
def test_a_browser_draws_it_under_its_own_policy(state: SweepState, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium here")
    page = write_report(state, tmp_path)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.count('class="main-svg"') >= 2
    assert 'data-title="Zoom"' in done.stdout
    assert 'data-title="Share' not in done.stdout  # Plotly's button that uploads the figure
    assert "Content Security Policy" not in done.stderr
    assert not re.search(r"Uncaught|ReferenceError", done.stderr)
