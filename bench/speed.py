"""All benches of speed, each in a process of its own: `make bench`, `make bench -- --full`.

    python bench/speed.py runs/bench [--full] [--only fbank --only encoder]

Prints one page of Markdown and leaves it in OUT/speed.md, beside the Markdown and the JSON of every bench.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from sonar.files import write_whole_text

BENCHES: tuple[str, ...] = (
    "startup",
    "fbank",
    "encoder",
    "model_step",
    "tokenizer_step",
    "waiting",
    "memory",
    "workers",
    "heap",
    "precision",
)
LONG = ("heap", "precision")  # run with --full, or by name
HERE = Path(__file__).parent


def run_all(
    out: Annotated[Path, typer.Argument(help="Folder for the Markdown and the JSON.")],
    full: Annotated[bool, typer.Option("--full", help="All sizes and more rounds; minutes longer.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this bench; again for more.")] = None,
) -> None:
    """Run the benches in turn, print what they found, and end with 1 where one failed."""
    unknown = [name for name in only or () if name not in BENCHES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is no bench of speed; give one of {', '.join(BENCHES)}")
    chosen = only or [name for name in BENCHES if full or name not in LONG]
    failed = []
    for name in chosen:
        began = time.perf_counter()
        command = [sys.executable, str(HERE / f"{name}.py"), str(out), *(["--full"] if full else [])]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            failed.append(name)
        typer.echo(f"{name}: {time.perf_counter() - began:.0f} s", err=True)
    pages = [(out / f"{name}.md").read_text(encoding="utf-8") for name in chosen if name not in failed]
    write_whole_text(out / "speed.md", "\n".join(pages))
    typer.echo("\n".join(pages))
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(run_all)
