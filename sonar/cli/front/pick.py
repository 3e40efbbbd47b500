"""`sonar front pick`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.front.tables import plain
from sonar.cli.options import SweepFolder

if TYPE_CHECKING:
    from sonar.search.picks.point import Pick
    from sonar.search.results import Ranked


def register_pick(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("pick")(pick_command)


def pick_command(
    folder: SweepFolder,
    rule: Annotated[str, typer.Option(help="epsilon, knee, weights or contribution.")] = "epsilon",
    limit: Annotated[
        float | None, typer.Option(help="Of epsilon: highest forgetting rate, percent; default: the sweep's own.")
    ] = None,
    weight: Annotated[
        float | None, typer.Option(help="Of weights: plasticity that one percent of forgetting is worth.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also write its encoder there, a Microsoft-layout file for BEATs code.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The pick as JSON on standard output.")] = False,
) -> None:
    """Choose one candidate of the front and say why, and what would change the choice."""
    import json

    from sonar.search.results import Choice, front, pick
    from sonar.search.run import read_sweep
    from sonar.search.uncertainty import front_draws

    state = read_sweep(folder)
    choice = Choice(rule, limit, weight)
    ranked, chosen = pick(state, choice, lambda members: front_draws(folder, members))
    difference = None if export is None else _export(folder, ranked, export)
    if as_json:
        members = front(state)
        runners_up = [plain(members[index]) for index in chosen.runners_up]
        typer.echo(json.dumps(_plain(ranked, chosen) | {"runners_up": runners_up}, indent=1))
        return
    typer.echo(chosen.explanation)
    typer.echo(_where(ranked))
    if difference is not None:
        typer.echo(f"wrote {export}; reloaded, largest difference {difference:.1e}")


def _plain(ranked: Ranked, chosen: Pick) -> dict[str, Any]:
    return plain(ranked) | {"rule": chosen.rule, "explanation": chosen.explanation, "params": ranked.record.params}


def _where(ranked: Ranked) -> str:
    alpha = ranked.candidate.key.alpha
    line = "" if alpha == 1 else f", at alpha {alpha:g} from the base: --export writes the encoder"
    return f"checkpoint: {ranked.candidate.checkpoint}{line}"


def _export(folder: Path, ranked: Ranked, path: Path) -> float:
    """Write the encoder, computed from base and checkpoint where it lies between them."""
    from sonar.export import export_beats
    from sonar.search.candidate_folders import find_base_of, load_candidate

    if ranked.candidate.checkpoint is None:
        raise ValueError(f"{ranked.point.name} has no checkpoint to export")
    checkpoint = Path(ranked.candidate.checkpoint)
    return export_beats(load_candidate(find_base_of(folder, checkpoint), checkpoint, ranked.candidate.key.alpha), path)
