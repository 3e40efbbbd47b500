"""How commands print tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 160  # columns of a pipe or a file, which have no width of their own


def show_table(table: Table, width: int = WIDTH) -> None:
    """Print a table as wide as the terminal; where there is none, in `width` columns."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=width)).print(table)
