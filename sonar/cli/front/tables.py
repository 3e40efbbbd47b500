"""Candidates as a table in the terminal, and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from sonar.evaluate.bootstrap import Interval
    from sonar.search.records import CandidateKey
    from sonar.search.results import Ranked

_TEXT = ("trial", "parameters")


def print_table(title: str, rows: Sequence[Ranked], picked: CandidateKey | None = None) -> None:
    """Print ranked candidates; the picked one has a star."""
    from rich.table import Table

    table = Table(title=title)
    for heading in ("trial", "step", "alpha", "rank", "plasticity %", "95 %", "forgetting %", "95 %", "worst %",
                    "parameters"):  # fmt: skip
        table.add_column(heading, justify="left" if heading in _TEXT else "right")
    for record, point, rank, candidate in rows:
        params = " ".join(f"{key.split('.')[-1]}={_short(value)}" for key, value in record.params.items())
        table.add_row(
            f"{record.trial_id}{' *' if candidate.key == picked else ''}",
            str(candidate.key.step),
            f"{candidate.key.alpha:g}",
            str(rank),
            f"{point.plasticity:+.1f}",
            _span(point.plasticity_interval),
            f"{point.forgetting_rate:+.1f}",
            _span(point.forgetting_interval),
            f"{candidate.metrics['forgetting_worst']:+.1f}",
            params,
        )
    show_table(table, width=180)
    if picked is not None:
        typer.echo("* picked: the most plasticity within the sweep's limit of forgetting")


def plain(ranked: Ranked) -> dict[str, Any]:
    """A candidate as plain values; an interval that is unknown is null."""
    trial_id, step, alpha = ranked.candidate.key
    point = ranked.point
    return {
        "trial_id": trial_id,
        "name": point.name,
        "kind": ranked.record.kind,
        "step": step,
        "alpha": alpha,
        "rank": ranked.rank,
        "plasticity": point.plasticity,
        "plasticity_interval": point.plasticity_interval,
        "forgetting_rate": point.forgetting_rate,
        "forgetting_interval": point.forgetting_interval,
        "checkpoint": ranked.candidate.checkpoint,
    }


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.1f} to {interval.high:.1f}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
