"""`sonar sequence`: domains one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonar.cli.options import (
    Assignments,
    Base,
    ConfigFile,
    Preset,
    Prior,
    RayAddress,
    Storage,
    TokenizerFile,
    configure,
)
from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from sonar.search.sequence import SequenceResult


def register_sequence(app: typer.Typer) -> None:
    """Add `sonar sequence`."""
    app.command()(sequence)


def sequence(
    out: Annotated[Path, typer.Argument(help="Folder of the sequence; give it again to resume.")],
    domain: Annotated[
        list[str],
        typer.Option(help="NAME=FOLDER or NAME=MANIFEST, or NAME alone for the embedded corpus; in their order."),
    ],
    prior: Prior = None,
    replay_domains: Annotated[
        bool, typer.Option("--replay-domains", help="Rehearse the earlier domains as well as the prior corpora.")
    ] = False,
    base: Base = None,
    tokenizer: TokenizerFile = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    preset: Preset = "sonar",
    storage: Storage = Path("runs"),
    ray_address: RayAddress = "auto",
) -> None:
    """Adapt a base to one domain after the other, and score every task after every one of them."""
    from sonar.experiment import TrialConfig, apply_preset
    from sonar.search.run import ray_session
    from sonar.search.sequence import Domain, SequencePlan, run_sequence

    plan = SequencePlan(
        domains=tuple(Domain(*_parse(text)) for text in domain),
        prior=tuple(prior or ()),
        replay_domains=replay_domains,
    )
    config = configure(apply_preset(TrialConfig(), preset), config_file, assignments, base, tokenizer)
    with ray_session(ray_address):
        found = run_sequence(config, plan, out, storage, typer.echo)
    _print(found)
    typer.echo(f"matrix: {out / 'matrix.csv'}\nmetrics: {out / 'sequence.json'}")


def _parse(text: str) -> tuple[str, str | None]:
    """Name and path of NAME=PATH; the path of NAME alone is None. `NAME=` may be a variable that is not set."""
    name, equals, path = text.partition("=")
    if equals and not path:
        raise ValueError(f"--domain {text} names no folder; give NAME=FOLDER, or NAME alone for the embedded corpus")
    return name, path or None


def _print(found: SequenceResult) -> None:
    from rich.table import Table

    table = Table(title="macro-F1 % on every task after every stage")
    table.add_column("after")
    for task, stage in zip(found.matrix.tasks, found.matrix.learned_at, strict=True):
        table.add_column(f"{task} ({found.matrix.stages[stage] if stage else 'prior'})", justify="right")
    for stage_name, row in zip(found.matrix.stages, found.matrix.scores, strict=True):
        table.add_row(stage_name, *(f"{score:.1f}" for score in row))
    show_table(table)
    for name, value in found.metrics._asdict().items():
        shown = value if isinstance(value, dict) else {"": value}
        for task, number in shown.items():
            typer.echo(f"{name}{' ' + task if task else ''}: {number:+.2f}")
