"""`sonar evaluate`: one model on a suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.options import RayAddress, Storage
from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from sonar.evaluate.run import Change
    from sonar.search.scoring import Report, Request

REPORT_FILE = "report.json"


def register_evaluate(app: typer.Typer) -> None:
    """Add `sonar evaluate`."""
    app.command()(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder, folder of a trial, or BEATs file.")],
    suite: Annotated[str, typer.Option(help="A packaged suite, or a YAML file; an unknown name lists them.")],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the suite's corpora. Default: SONAR_AUDIO, or the folder of the YAML file."),
    ] = None,
    split: Annotated[str, typer.Option(help="dev; or test, with --final.")] = "dev",
    final: Annotated[bool, typer.Option("--final", help="This is the final report: it may look at test.")] = False,
    against: Annotated[Path | None, typer.Option(help="The base that MODEL was adapted from.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and the predictions of every task.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on standard output.")] = False,
    storage: Storage = Path("runs"),
    ray_address: RayAddress = "auto",
) -> None:
    """Score a frozen encoder on every task of a suite, with intervals, and against its base."""
    import json

    from sonar.evaluate.record import split_folder, write_evaluation
    from sonar.evaluate.suite import find_suite
    from sonar.files import write_whole_text
    from sonar.search.run import ray_session
    from sonar.search.scoring import Request, evaluate_suite, find_root

    found = find_suite(suite)
    request = Request(model, found, find_root(root, found), split, final, against)
    with ray_session(ray_address):
        report = evaluate_suite(request, storage, lambda line: typer.echo(line, err=as_json))
    text = json.dumps(_plain(request, report), indent=1)
    if out is not None:
        write_evaluation(report.evaluation, split_folder(out, split))
        write_whole_text(out / REPORT_FILE, text)
    if as_json:
        typer.echo(text)
    else:
        _print(request, report)


def _plain(request: Request, report: Report) -> dict[str, Any]:
    change = report.change
    return {
        "model": str(request.model),
        "checkpoint": report.checkpoint,
        "suite": request.suite.suite.name,
        "suite_hash": report.suite_hash,
        "split": request.split,
        "against": None if request.against is None else str(request.against),
        "tasks": [{**row._asdict(), "interval": list(row.interval)} for row in report.rows],
        "change": None if change is None else change.metrics() | {"worst": change.worst()},
        "earlier_tests": dict(report.earlier_tests),
    }


def _print(request: Request, report: Report) -> None:
    from rich.table import Table

    table = Table(title=f"{request.suite.suite.name}, {request.split}: {request.model}, percent")
    for heading in ("task", "role", "metric", "score", "95 %", "recordings", "base", "change %", "seconds"):
        table.add_column(heading, justify="left" if heading in ("task", "role", "metric") else "right")
    for row in report.rows:
        base, change = ("" if value is None else f"{value:+.1f}" for value in (row.base, row.change))
        interval = f"{row.interval.low:.1f} to {row.interval.high:.1f}"
        numbers = (f"{row.score:.1f}", interval, str(row.recordings), base.lstrip("+"), change, f"{row.seconds:.1f}")
        table.add_row(row.name, row.role, row.metric, *numbers)
    show_table(table)
    if single := [row.name for row in report.rows if row.recordings == 1]:
        typer.echo(f"a single recording was scored of {', '.join(single)}: that interval is over its clips")
    if report.change is not None:
        _print_change(report.change)
    if request.split == "test":
        typer.echo(_earlier(request.suite.suite.name, report))


def _print_change(change: Change) -> None:
    typer.echo(f"plasticity {change.plasticity:+.2f} %, forgetting {change.forgetting_rate:+.2f} %")
    typer.echo(f"worst task: {change.worst_task.name}, forgetting {change.worst_task.lost:+.2f} %")
    typer.echo(f"worst class: {change.worst_class.name}, {change.worst_class.lost:+.1f} points lost")
    kept = ", ".join(f"{task} {share:.1f}" for task, share in change.retention.items())
    typer.echo(f"retention %: {kept}")


def _earlier(suite: str, report: Report) -> str:
    if not report.earlier_tests:
        return f"the test split of {suite} had not been used before"
    named = ", ".join(f"{name} ({count})" for name, count in sorted(report.earlier_tests.items()))
    return (
        f"the test split of {suite} had been used {report.earlier_tests.total()} times before, for the checkpoints "
        f"{named}: choices made after such a look are not independent of it"
    )
