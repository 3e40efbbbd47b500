"""What every bench of speed shares: ways that take turns, medians with their spread, the machine, Markdown and JSON.

A bench of speed is a file with `section(full: bool) -> Section` and ends in `main(section)`: `python bench/NAME.py OUT`
prints its Markdown and writes OUT/NAME.md and OUT/NAME.json; `bench/speed.py` runs all of them (`make bench`).
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from sonar.files import write_whole_text
from sonar.provenance import provenance

MATMUL = (992, 768, 3072)  # rows, inner, columns: the feed-forward layer of BEATs-base on two clips of 10 s

PRODUCTS_ON_GPU = 50
SPREAD = "Figures: median (lowest to highest)."

Ways = Mapping[str, Callable[[], object]]


class Section(NamedTuple):
    """What a bench found.

    Attributes:
        title: its heading.
        lines: Markdown: tables, and what they say.
        record: the same as numbers, every single measurement in it.
    """

    title: str
    lines: list[str]
    record: dict[str, Any]

    def markdown(self) -> str:
        """Heading and lines."""
        return "\n".join([f"## {self.title}", "", *self.lines, ""])


def take_turns(ways: Ways, rounds: int, *, warmups: int = 1) -> dict[str, list[float]]:
    """Seconds of every way, one after the other in each round, so that a busy machine slows all of them.

    Args:
        ways: name -> what is timed; on a GPU its kernels are waited for.
        rounds: times that each is timed.
        warmups: times that each is called before.
    """
    for _ in range(warmups):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(seconds_of(way))
    return seconds


def seconds_of(way: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    _wait_for_gpu()
    began = time.perf_counter()
    way()
    _wait_for_gpu()
    return time.perf_counter() - began


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median, and lowest to highest."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """How many times as long `slow` took, round by round."""
    return [a / b for a, b in zip(slow, fast, strict=True)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [_row(header), "|---" * len(header) + "|", *(_row(row) for row in rows), ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


class Matmul:
    """The machine's own rate: a product at the encoder's shapes, to be timed in turn with what is set against it.

    Attributes:
        flop: floating-point operations of one call.
    """

    def __init__(self, dtype: torch.dtype, device: str = "cpu", shape: tuple[int, int, int] = MATMUL) -> None:
        """Draw the operands and the place of the result."""
        rows, inner, columns = shape
        self._products = 1 if device == "cpu" else PRODUCTS_ON_GPU
        self.flop = 2.0 * rows * inner * columns * self._products
        self._a, self._b = (torch.randn(size, device=device).to(dtype) for size in ((rows, inner), (inner, columns)))
        self._out = torch.empty(rows, columns, dtype=dtype, device=device)

    def __call__(self) -> None:
        """One product; on a GPU several, as waiting for one takes about as long as itself."""
        for _ in range(self._products):
            torch.mm(self._a, self._b, out=self._out)


def fastest_rate(matmul: Matmul, seconds: Sequence[float]) -> float:
    """FLOP/s of the fastest call: the peak that utilisation is a share of."""
    return matmul.flop / min(seconds)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, Any]:
    """What was measured on, and what with."""
    return {
        **provenance(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def describe(made_by: Mapping[str, Any]) -> str:
    """The machine in a line."""
    commit = str(made_by["commit"] or "unknown")[:7] + (" with changes" if made_by["dirty"] else "")
    return (
        f"{made_by['processor']}, {made_by['cores']} cores, {made_by['threads']} threads, {made_by['device']}, torch "
        f"{made_by['torch']}, load {made_by['load']:.1f} at the start; commit {commit}, {made_by['date']}."
    )


def write_section(out: Path, name: str, section: Section, made_by: Mapping[str, Any]) -> None:
    """OUT/NAME.md and OUT/NAME.json."""
    write_whole_text(out / f"{name}.md", f"{section.markdown()}\n{describe(made_by)} {SPREAD}\n")
    record = {"made_by": dict(made_by), "title": section.title, **section.record}
    write_whole_text(out / f"{name}.json", json.dumps(record, indent=1) + "\n")


def main(section: Callable[[bool], Section], name: str) -> None:
    """The command of a single bench."""

    def command(
        out: Annotated[Path, typer.Argument(help="Folder for the Markdown and the JSON.")],
        full: Annotated[bool, typer.Option("--full", help="All sizes and more rounds; minutes longer.")] = False,
    ) -> None:
        made_by = machine()
        found = section(full)
        write_section(out, name, found, made_by)
        typer.echo(f"{found.markdown()}\n{describe(made_by)} {SPREAD}")

    typer.run(command)


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
