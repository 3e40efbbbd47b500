"""A sweep as one HTML file that needs nothing else: front, pick and reasons, every trial, settings."""

import json
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sonar.figures import front_figure, parallel_figure
from sonar.files import write_whole_text
from sonar.page import cell, page
from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import (
    front,
    front_hypervolume,
    pick,
    picked,
    picked_id,
    ranked_trials,
    write_front_csv,
    write_trials_csv,
)

__all__ = ["front_figure", "parallel_figure", "write_report"]

# Plotly's own bar has a button that uploads the figure to its maker's cloud.
_FIGURE_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""}
_FRONT_NOTE = (
    "<p>From and to: 95 % interval over recordings. Rank 1: no other candidate is better on both axes as measured; "
    "one of a higher rank is here for its upper bound of forgetting.</p>"
)
_FIRST_METRICS = ("plasticity", "forgetting_rate", "forgetting_worst")


def write_report(state: SweepState, folder: Path) -> Path:
    """Write `report.html`, `front.html`, `front.csv` and `trials.csv`; each is whole or not there.

    Args:
        state: of a sweep, finished or not.
        folder: made if need be.

    Returns:
        The path of `report.html`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = f"Sweep {state.settings.get('name', 'without a name')}"
    write_whole_text(folder / "front.html", page(f"{title}: front", [_embed(front_figure(state), "front", True)]))
    write_front_csv(state, folder / "front.csv")
    write_trials_csv(state, folder / "trials.csv")
    sections = [
        f"<h1>{escape(title)}</h1>",
        _summary(state),
        "<h2>Front</h2>",
        _embed(front_figure(state), "front", True),
        _front_table(state),
        "<h2>Pick</h2>",
        _pick_section(state),
        _parallel_section(state),
        "<h2>Trials</h2>",
        _table(state),
        "<h2>Settings</h2>",
        f"<details><summary>as in the journal</summary><pre>{_pretty(state.settings)}</pre></details>",
    ]
    path = folder / "report.html"
    write_whole_text(path, page(title, sections))
    return path


def _embed(figure: go.Figure, name: str, with_library: bool) -> str:
    return figure.to_html(
        full_html=False,
        include_plotlyjs=with_library,
        div_id=f"figure-{name}",
        default_height="480px",
        config=_FIGURE_CONFIG,
    )


def _summary(state: SweepState) -> str:
    records = state.trials.values()
    counts = {status: sum(record.status == status for record in records) for status in ("told", "failed", "pruned")}
    running = sum(not record.is_finished for record in records)
    volume = front_hypervolume(state)
    parts = [
        f"domain {escape(str(state.settings.get('domain', 'not recorded')))}",
        f"{counts['told']} trials finished, {counts['failed']} failed, {counts['pruned']} stopped early, "
        f"{running} not finished",
        "hypervolume not known before the anchors are done" if volume is None else f"hypervolume {volume:.2f} %²",
        f"forgetting limit {state.settings.get('forgetting_limit', 'not recorded')} %",
    ]
    return f"<p>{' · '.join(parts)}</p>"


def _front_table(state: SweepState) -> str:
    """The candidates of the front; intervals are of 95 % over recordings."""
    chosen = picked(state)
    columns = ("candidate", "step", "alpha", "rank", "plasticity", "from", "to", "forgetting_rate", "from", "to")
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = []
    for ranked in front(state):
        point, (_, step, alpha) = ranked.point, ranked.candidate.key
        plastic, forgot = point.plasticity_interval or (None, None), point.forgetting_interval or (None, None)
        values = (point.name, step, alpha, ranked.rank, point.plasticity, *plastic, point.forgetting_rate, *forgot)
        look = ' class="pick"' if ranked.candidate.key == chosen else ""
        rows.append(f'<tr{look} data-candidate="{escape(point.name)}">{"".join(map(cell, values))}</tr>')
    return f"{_FRONT_NOTE}<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table>"


def _pick_section(state: SweepState) -> str:
    try:
        ranked, chosen = pick(state)
    except ValueError as error:
        return f"<p>No pick: {escape(str(error))}.</p>"
    lines = "".join(f"<li>{escape(name)} = {escape(repr(value))}</li>" for name, value in ranked.record.params.items())
    checkpoint = ranked.candidate.checkpoint
    place = f"<p>Checkpoint: <code>{escape(checkpoint)}</code></p>" if checkpoint else ""
    alpha = ranked.candidate.key.alpha
    if alpha < 1:
        place += f"<p>The encoder lies at alpha {alpha:g} between the base and this checkpoint: export the pick.</p>"
    return f"<p><b>Rule: {escape(chosen.rule)}.</b> {escape(chosen.explanation)}</p><ul>{lines}</ul>{place}"


def _parallel_section(state: SweepState) -> str:
    figure = parallel_figure(state)
    if figure is None:
        return ""
    return f"<h2>Parameters and results, a line for each trial</h2>{_embed(figure, 'parallel', False)}"


def _table(state: SweepState) -> str:
    ranks = {ranked.record.trial_id: ranked.rank for ranked in ranked_trials(state)}
    params = list(dict.fromkeys(name for record in state.trials.values() for name in record.params))
    found = dict.fromkeys(name for record in state.trials.values() for name in record.metrics)
    first = [name for name in _FIRST_METRICS if name in found]
    names = [*first, *params, *(name for name in found if name not in first)]
    columns = ["trial", "kind", "status", "best rank", *names, "reason"]
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    chosen = picked_id(state)
    order = sorted(state.trials.values(), key=lambda record: (ranks.get(record.trial_id, 10**9), record.trial_id))
    rows = "\n".join(_row(record, ranks.get(record.trial_id), names, chosen) for record in order)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"


def _row(record: TrialRecord, rank: int | None, names: list[str], chosen: str | None) -> str:
    look = "pick" if record.trial_id == chosen else record.status
    cells = [
        cell(record.name),
        cell(record.kind),
        cell(record.status),
        cell(rank),
        *(cell(record.metrics.get(name, record.params.get(name))) for name in names),
        cell(record.reason),
    ]
    return f'<tr class="{escape(look)}" data-trial="{escape(record.trial_id)}">{"".join(cells)}</tr>'


def _pretty(settings: dict[str, Any]) -> str:
    return escape(json.dumps(settings, indent=2, ensure_ascii=False))
