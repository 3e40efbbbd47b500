"""How far long work is: a bar on a terminal, else a line at intervals; on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from sonar.data.scan_progress import Lines, Pace


class Told(Protocol):
    """Hears how much is done, of how much, and what else is to be said of it."""

    def __call__(self, done: int, total: int, more: str = "") -> None:
        """Take the progress."""


@contextmanager
def told_progress(what: str, *, stderr: bool = True) -> Iterator[Told]:
    """Gives what hears how much is done; `what` names it, `stderr=False` says it on standard output."""
    began = time.monotonic()
    with told_lines(stderr=stderr) as told:

        def tell(done: int, total: int, more: str = "") -> None:
            pace = Pace.of(done, total, time.monotonic() - began)
            told(done, total, f"{what} {done}/{total}{more} | {pace.per_s:.3g}/s | ETA {pace.left_s:.0f} s")

        yield tell


@contextmanager
def told_lines(*, stderr: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """Gives what hears how much is done, of how much, and the line that says so."""
    console = Console(stderr=stderr)
    if not console.is_terminal:
        lines = Lines(lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True))
        yield lambda done, total, line: lines(line)
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, line: bar.update(task, completed=done, total=total, description=escape(line))
