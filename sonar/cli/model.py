"""`sonar pretrain`, `adapt`, `embed`, `export`: one model at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

Model = Annotated[Path, typer.Option("--model", help="Checkpoint folder of ours or BEATs file.")]


def register_model_commands(app: typer.Typer) -> None:
    """Add the commands that work on one model."""
    for command in (pretrain, adapt, embed, export):
        app.command()(command)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder to write. A run that was cut off continues from the storage.")],
    prior: Prior = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    storage: Storage = Path("runs"),
    ray_address: RayAddress = "auto",
) -> None:
    """Build a small BEATs base from scratch on prior audio (size and steps: --set base.pretrain.width=256)."""
    from sonar.checkpoint import load_checkpoint, save_checkpoint
    from sonar.experiment import TrialConfig
    from sonar.search.prepare import prepare_base
    from sonar.search.run import ray_session

    if out.exists():
        raise FileExistsError(f"{out} exists already: give a new name or remove it")
    config = configure(TrialConfig(), config_file, assignments)
    with ray_session(ray_address):
        folder = prepare_base(config.base, tuple(prior or ()), storage, typer.echo)
    save_checkpoint(load_checkpoint(folder), out)
    typer.echo(f"base: {out}")


def adapt(
    out: Annotated[Path, typer.Option(help="Folder of the run; give it again to resume.")],
    data: Data = None,
    prior: Prior = None,
    base: Base = None,
    tokenizer: TokenizerFile = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    domain: Domain = "bio",
    preset: Preset = "sonar",
    storage: Storage = Path("runs"),
    ray_address: RayAddress = "auto",
) -> None:
    """Adapt a base to one domain without a sweep, and judge the result."""
    from sonar.experiment import TrialConfig, apply_preset
    from sonar.search.prepare import Sources, prepare
    from sonar.search.progress import StepLines
    from sonar.search.run import ray_session
    from sonar.search.trial import run_trial

    config = configure(apply_preset(TrialConfig(), preset), config_file, assignments, base, tokenizer)
    with ray_session(ray_address):
        prepared = prepare(config, Sources(domain, data, tuple(prior or ())), storage, typer.echo)
        result = run_trial(config, prepared, out, StepLines(typer.echo))
    for name in ("plasticity", "forgetting_rate", "forgetting_worst", "trial_seconds"):
        typer.echo(f"{name}: {result.metrics[name]:+.2f}")
    typer.echo(f"checkpoint: {result.checkpoint}")


def embed(
    folder: Annotated[Path, typer.Argument(help="Folder of audio or manifest.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Parquet file to write: clip_id, path, embedding.")],
    clip_seconds: Annotated[float, typer.Option(help="Clips are cropped to this length in seconds.")] = 10.0,
) -> None:
    """Embeddings of a folder: the mean of the encoder's last layer for every clip."""
    from sonar.checkpoint import load_checkpoint
    from sonar.evaluate.embed import write_embeddings

    scan = write_embeddings(load_checkpoint(model).encoder, folder, out, clip_seconds)
    typer.echo(f"wrote {len(scan.clips)} embeddings to {out}; {len(scan.quarantine)} files quarantined")
    for bad in scan.quarantine:
        typer.echo(f"  quarantined {bad.path}: {bad.reason}")


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write.")],
    to: Annotated[str, typer.Option(help="beats: a Microsoft-layout file for existing BEATs code.")] = "beats",
) -> None:
    """Write the encoder in another layout, reload it and compare."""
    from sonar.checkpoint import load_checkpoint
    from sonar.export import export_beats

    if to != "beats":
        raise ValueError(f"cannot export to {to!r}; there is: beats")
    difference = export_beats(load_checkpoint(model), out)
    typer.echo(f"wrote {out}; reloaded, largest difference {difference:.1e}")
