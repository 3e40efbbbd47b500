"""`sonar data shards`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.options import RayAddress

if TYPE_CHECKING:
    from sonar.data.manifest import Clip
    from sonar.data.shard_folder import ShardFolder
    from sonar.data.shard_summary import ShardSummary
    from sonar.data.shards import Progress

_DAMAGED = 1  # exit status


def register_shards(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(shards)


def shards(
    out: Annotated[str, typer.Option(help="Folder or URL (s3://, gs://, hdfs://, ...) that every node sees.")],
    manifest: Annotated[str | None, typer.Argument(help="Manifest, .parquet or .csv; not needed to --verify.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder of the audio, if not the manifest's own.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all of --out and name every damaged file.")] = False,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of unreadable clips above which it stops.")] = 0.05,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="Tasks at a time. Without it: all CPUs.")] = None,
    ray_address: RayAddress = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
) -> None:
    """Write a manifest's audio as Parquet shards; a pass that was stopped goes on where it was."""
    from sonar.data.shard_folder import ShardFolder

    folder = ShardFolder(out)
    if verify:
        _verify(folder, as_json)
        return
    if manifest is None:
        raise ValueError("no manifest given; make one with `sonar data scan FOLDER --out FILE`")
    from sonar.data.manifest import read_manifest
    from sonar.data.shard_summary import SUMMARY_FILE
    from sonar.data.shards import write_shards
    from sonar.search.run import ray_session

    clips = read_manifest(manifest, root=root)
    is_done = folder.exists(SUMMARY_FILE)
    with nullcontext() if is_done else ray_session(ray_address), _shown(silent=as_json) as shown:
        if not is_done:
            _check_nodes(folder, clips)
        summary = write_shards(clips, out, max_bad_fraction=max_bad_fraction, concurrency=num_cpus, on_progress=shown)
    if as_json:
        typer.echo(json.dumps(_as_json(folder, summary)))
    else:
        _print(folder, summary)


def _check_nodes(folder: ShardFolder, clips: list[Clip]) -> None:
    """Refuse a cluster whose nodes do not see what they are to read and write."""
    from sonar.search.nodes import check_is_seen, check_storage_is_shared

    if folder.local is not None:
        folder.local.mkdir(parents=True, exist_ok=True)
        check_storage_is_shared(folder.local, option="--out")
    check_is_seen(Path(clips[0].path))


def _verify(folder: ShardFolder, as_json: bool) -> None:
    from sonar.data.shard_summary import verify_shards

    damaged = verify_shards(folder)
    if as_json:
        typer.echo(json.dumps({"damaged": [one._asdict() for one in damaged]}))
    else:
        for one in damaged:
            typer.echo(f"damaged: {folder}/{one.file}: {one.reason}")
        typer.echo(f"{folder}: {len(damaged)} damaged files")
    if damaged:
        raise typer.Exit(_DAMAGED)


def _as_json(folder: ShardFolder, summary: ShardSummary) -> dict[str, Any]:
    return {
        "shards": str(folder),
        "manifest": summary.manifest,
        "num_clips": summary.num_clips,
        "strata": {name: stratum._asdict() for name, stratum in summary.strata.items()},
        "quarantine": [bad._asdict() for bad in summary.quarantine],
    }


def _print(folder: ShardFolder, summary: ShardSummary) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("stratum", "clips", "hours", "MB", "quarantined")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in summary.strata.items():
        table.add_row(
            escape(name), str(one.num_clips), f"{one.hours:.2f}", f"{one.num_bytes / 1e6:.1f}", str(one.num_bad)
        )
    Console().print(table)
    for bad in summary.quarantine:
        typer.echo(f"  quarantined {bad.path}: {bad.reason}")
    typer.echo(f"{summary.num_clips} clips in {len(summary.files)} files: {folder}")


@contextmanager
def _shown(*, silent: bool) -> Iterator[Callable[[Progress], None]]:
    """Gives what hears how far the pass is. On standard output, as Ray's standard error is held back."""
    from sonar.cli.data.progress import told_progress

    if silent:
        yield lambda progress: None
        return
    with told_progress("shards", stderr=False) as told:
        yield lambda progress: told(progress.num_done, progress.num_clips, f", {progress.num_bad} quarantined")
