"""Figures of a sweep: the front and the parallel coordinates of its trials."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import Ranked, front, picked, picked_id, ranked_candidates

BLUE, GREY, ORANGE, RED, GREEN = "#2f6fb2", "#9aa3ad", "#e08a1e", "#c0392b", "#1e8449"
PART_SIZE = 0.6  # of the mark of a candidate that is not a trial's end
WIDE_RANGE = 100.0  # positive values that span more than this are drawn by their logarithm


def front_figure(state: SweepState) -> go.Figure:
    """Plasticity against forgetting rate, both in percent: front, anchors, forgetting limit and pick.

    Args:
        state: of a sweep whose objectives are plasticity and forgetting_rate; every candidate is drawn, those on the
            way and between base and trained encoder smaller.
    """
    ranked = ranked_candidates(state)
    chosen, on_front = picked(state), {r.candidate.key for r in front(state)}
    groups = {
        "dominated": [r for r in ranked if r.candidate.key not in on_front and r.record.kind != "anchor"],
        "front": [r for r in ranked if r.candidate.key in on_front and r.record.kind != "anchor"],
        "anchor": [r for r in ranked if r.record.kind == "anchor"],
        "pick": [r for r in ranked if r.candidate.key == chosen],
    }
    markers: dict[str, dict[str, Any]] = {
        "dominated": {"color": GREY, "size": 8},
        "front": {"color": BLUE, "size": 10},
        "anchor": {"color": ORANGE, "size": 12, "symbol": "diamond"},
        "pick": {"color": GREEN, "size": 20, "symbol": "star-open", "line": {"width": 3}},
    }
    figure = go.Figure(_front_line([r for r in ranked if r.rank == 1]))
    for name, members in groups.items():
        if members:
            figure.add_trace(_points(name, members, markers[name]))
    figure.update_traces(_error_bars(groups["pick"]), selector={"name": "pick"})
    limit = state.settings.get("forgetting_limit")
    if limit is not None:
        figure.add_vline(x=limit, line={"color": RED, "dash": "dash"}, annotation_text=f"limit {limit:g} %")
    figure.update_layout(
        template="plotly_white",
        xaxis_title="forgetting rate, % (left is better)",
        yaxis_title="plasticity, % (up is better)",
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
    )
    return figure


def parallel_figure(state: SweepState) -> go.Figure | None:
    """Parameters and objectives of the searched told trials, one line a trial; None with fewer than two.

    Drawn as plain lines: Plotly's own parallel coordinates compile code while they run, which the report's
    content policy forbids.
    """
    told = [record for record in state.trials.values() if record.status == "told" and record.kind == "search"]
    if len(told) < 2:
        return None
    names = [*state.settings["space"], *state.settings["objectives"]]
    places = {name: _places([_value(record, name) for record in told]) for name in names}
    chosen = picked_id(state)
    figure = go.Figure()
    for index, record in enumerate(told):
        is_pick = record.trial_id == chosen
        figure.add_trace(
            go.Scatter(
                x=[escape(name) for name in names],
                y=[places[name][index] for name in names],
                mode="lines+markers",
                name=escape(record.name),
                text=[f"{escape(record.name)}<br>{_show(_value(record, name))}" for name in names],
                hoverinfo="text",
                opacity=1.0 if is_pick else 0.5,
                line={"color": GREEN if is_pick else BLUE, "width": 4 if is_pick else 1.5},
                showlegend=False,
            )
        )
    figure.update_layout(template="plotly_white", margin={"l": 30, "r": 20, "t": 20, "b": 50})
    figure.update_yaxes(tickvals=[0, 1], ticktext=["low", "high"])
    return figure


def _front_line(best: Sequence[Ranked]) -> go.Scatter:
    """Through the members that none is better than as measured; those on the front for their bound lie below it."""
    ordered = sorted(best, key=lambda r: r.point.forgetting_rate)
    return go.Scatter(
        x=[r.point.forgetting_rate for r in ordered],
        y=[r.point.plasticity for r in ordered],
        mode="lines",
        line={"color": BLUE, "width": 1, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )


def _points(name: str, members: Sequence[Ranked], marker: Mapping[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[r.point.forgetting_rate for r in members],
        y=[r.point.plasticity for r in members],
        mode="markers+text" if name == "anchor" else "markers",
        name=name,
        marker=dict(marker) | {"size": [marker["size"] * (1.0 if _is_whole(r) else PART_SIZE) for r in members]},
        text=[escape(r.point.name) if _is_whole(r) else "" for r in members],
        textposition="top center",
        hovertext=[_hover(r) for r in members],
        hoverinfo="text",
    )


def _error_bars(picked: Sequence[Ranked]) -> dict[str, Any]:
    """95 % intervals of the pick, whose upper bound the limit applies to; none where they are unknown."""
    bars = {}
    for ranked in picked:
        point = ranked.point
        axes = {"error_x": (point.forgetting_rate, point.forgetting_interval),
                "error_y": (point.plasticity, point.plasticity_interval)}  # fmt: skip
        for axis, (value, interval) in axes.items():
            if interval is not None:
                ends = {"array": [interval.high - value], "arrayminus": [value - interval.low]}
                bars[axis] = {"symmetric": False, "color": GREEN, "thickness": 1, **ends}
    return bars


def _is_whole(ranked: Ranked) -> bool:
    """Whether the candidate is what its trial was told with."""
    return ranked.point.name == ranked.record.name


def _hover(ranked: Ranked) -> str:
    head = f"<b>{escape(ranked.point.name)}</b><br>plasticity {ranked.point.plasticity:+.2f} %"
    params = [f"{escape(name)} = {_show(value)}" for name, value in ranked.record.params.items()]
    return "<br>".join([f"{head}<br>forgetting {ranked.point.forgetting_rate:.2f} %", *params])


def _value(record: TrialRecord, name: str) -> Any:
    return record.metrics[name] if name in record.metrics else record.params.get(name)


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def _places(values: Sequence[Any]) -> list[float]:
    """Each value's height between 0 (lowest) and 1; what is not a number stands in the order of its text."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        order = sorted({str(value) for value in values})
        numbers = [float(order.index(str(value))) for value in values]
    elif min(values) > 0 and max(values) / min(values) > WIDE_RANGE:
        numbers = [math.log(value) for value in values]
    else:
        numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    return [0.5 if high == low else (number - low) / (high - low) for number in numbers]
