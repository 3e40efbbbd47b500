"""`sonar noise`: how much of a difference is chance."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.options import (
    Assignments,
    Base,
    ConfigFile,
    Data,
    Domain,
    Preset,
    Prior,
    RayAddress,
    Storage,
    TokenizerFile,
    configure,
)
from sonar.cli.tables import show_table

if TYPE_CHECKING:
    from sonar.evaluate.noise import Noise


def register_noise(app: typer.Typer) -> None:
    """Add `sonar noise`."""
    app.command()(noise)


def noise(
    out: Annotated[Path, typer.Argument(help="Folder of the runs and of noise.json; give it again to go on.")],
    data: Data = None,
    prior: Prior = None,
    base: Base = None,
    tokenizer: TokenizerFile = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    domain: Domain = "bio",
    preset: Preset = "sonar",
    storage: Storage = Path("runs"),
    seeds: Annotated[int, typer.Option(help="Runs of the configuration, under the seeds 0, 1, ...")] = 5,
    jobs: Annotated[int, typer.Option(help="Runs at a time; above 1: one thread each.")] = 1,
    existing: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="A finished run; repeat it. Nothing is run then; --base is an evaluation's folder."
        ),
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Difference or limit that is to be resolved, percent.")] = 1.0,
    resamples: Annotated[int, typer.Option(help="Of the recordings.")] = 2000,
    ray_address: RayAddress = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print noise.json; progress goes to standard error.")] = False,
) -> None:
    """Run one configuration under several seeds: sigma of both axes, and what the probe sets can resolve."""
    from sonar.config import to_dict
    from sonar.evaluate.bootstrap import Resampling
    from sonar.evaluate.noise import NOISE_FILE, describe_noise
    from sonar.experiment import TrialConfig, apply_preset
    from sonar.files import write_whole_text
    from sonar.provenance import provenance
    from sonar.search.audit import AuditConfig, audit_existing, audit_seeds
    from sonar.search.prepare import Sources, prepare
    from sonar.search.run import ray_session

    audit = AuditConfig(seeds=seeds, jobs=jobs, resampling=Resampling(num=resamples))
    made_by: dict[str, Any] = {"provenance": provenance()}
    if existing:
        found = audit_existing(existing, None if base is None else Path(base), audit.resampling)
    else:
        config = configure(apply_preset(TrialConfig(), preset), config_file, assignments, base, tokenizer)
        say = partial(typer.echo, err=as_json)
        with ray_session(ray_address):
            prepared = prepare(config, Sources(domain, data, tuple(prior or ())), storage, say)
            found = audit_seeds(config, prepared, out, audit, say)
        made_by |= {"config": to_dict(config), "base": Path(prepared.base).name}
    text = json.dumps(describe_noise(found, epsilon, made_by), indent=1)
    write_whole_text(out / NOISE_FILE, text)
    if as_json:
        typer.echo(text)
        return
    _print(found, epsilon)
    typer.echo(f"noise: {out / NOISE_FILE}")


def _print(found: Noise, epsilon: float) -> None:
    from rich.table import Table

    from sonar.evaluate.noise import AXES, resolution, verdict

    title = f"noise of {len(found.runs)} runs, percent of the base's score"
    table = Table(
        "",
        *(Path(name).name for name in found.runs),
        "mean",
        "sigma, seeds [95 %]",
        "sigma, recordings",
        "sigma of one run",
        title=title,
    )
    sizes = Table(
        "smallest difference",
        "1 run a side",
        f"{len(found.runs)} a side",
        f"seeds for {epsilon:g} %",
        f"clips for {epsilon:g} %",
        title="what the probe sets resolve (two-sided 5 %, power 80 %)",
    )
    for name in AXES:
        axis = found.axis(name)
        can = resolution(axis, epsilon)
        low, high = axis.sigma_interval
        table.add_row(
            name.replace("_", " "),
            *(f"{value:+.1f}" for value in axis.values),
            f"{axis.mean:+.1f}",
            f"{axis.sigma:.2f} [{low:.2f}, {high:.2f}]",
            f"{axis.clip_sigma:.2f}, own {axis.own_clip_sigma:.2f}",
            f"{axis.total_sigma:.2f}",
        )
        clips = "no number" if can.clips_needed is None else f"x {can.clips_needed:.1f}"
        sizes.add_row(
            name.replace("_", " "),
            f"{can.smallest_single:.2f}",
            f"{can.smallest_audited:.2f}",
            str(can.runs_needed),
            clips,
        )
    show_table(table)
    show_table(sizes)
    for name, reason in found.failed.items():
        typer.echo(f"{name} failed and is not in sigma: {reason}")
    for name in AXES:
        typer.echo(verdict(name, found.axis(name), epsilon))
