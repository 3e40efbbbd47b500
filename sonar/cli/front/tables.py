"""Trials as a table in the terminal."""

from __future__ import annotations

from typing import Any


def print_table(title: str, rows: list[Any]) -> None:
    """Print ranked trials."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in ("trial", "step", "alpha", "rank", "plasticity %", "forgetting %", "worst %", "parameters"):
        table.add_column(heading, justify="left" if heading in ("trial", "parameters") else "right")
    for record, point, rank, candidate in rows:
        params = " ".join(f"{key.split('.')[-1]}={_short(value)}" for key, value in record.params.items())
        worst = f"{candidate.metrics['forgetting_worst']:+.1f}"
        table.add_row(
            record.trial_id,
            str(candidate.key.step),
            f"{candidate.key.alpha:g}",
            str(rank),
            f"{point.plasticity:+.1f}",
            f"{point.forgetting_rate:+.1f}",
            worst,
            params,
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
