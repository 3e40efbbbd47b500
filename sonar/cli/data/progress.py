"""How far long work is: a bar on a terminal, else a line at intervals; on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

INTERVAL_S = 10.0


@contextmanager
def told_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives what hears how much is done, of how much."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    def __init__(self, what: str, console: Console) -> None:
        self._what, self._console = what, console
        self._told_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= INTERVAL_S:
            self._told_at = now
            self._console.print(f"{self._what} {done}/{total}", highlight=False)
