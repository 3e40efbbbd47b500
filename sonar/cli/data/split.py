"""`sonar data split`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sonar.data.leakage import Duplicate, DuplicateReport
    from sonar.data.manifest import Clip
    from sonar.data.splits import LabelSplits

FOUND = 1  # exit status where --check finds audio in two splits, or cannot read some
_SHOWN = 20  # of a list on the terminal; --json gives all
_KEPT_TOGETHER: dict[str, Callable[[Clip], str]] = {
    "group": lambda clip: clip.group,
    "file": lambda clip: f"{clip.corpus}/{clip.sha256}",
}


def register_split(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(split)


def split(
    manifest: Annotated[str, typer.Argument(help="Manifest, .parquet or .csv; a path or a URL.")],
    out: Annotated[str | None, typer.Option(help="Manifest to write; a path or a URL.")] = None,
    root: Annotated[
        str | None, typer.Option(help="Folder or URL below which the audio lies, if not where the manifests are.")
    ] = None,
    fractions: Annotated[str, typer.Option(help="Share of the clips per split.")] = "train=0.6,dev=0.2,test=0.2",
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    by: Annotated[str, typer.Option(help="What is kept together: group; or file, where the groups say nothing.")] = (
        "group"
    ),
    ignore_given: Annotated[bool, typer.Option("--ignore-given", help="Make all splits anew.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Write nothing: look for what stands in two splits.")] = False,
    against: Annotated[
        list[str] | None, typer.Option(help="With --check: manifests that train or evaluate beside it; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Give the clips of a manifest that have none a split, or check the splits that it has."""
    from sonar.data.manifest import read_manifest, write_manifest
    from sonar.data.splits import complete_splits, split_report

    if check == (out is not None):
        raise ValueError("give either --out MANIFEST to write splits, or --check to look at those that are there")
    if against and not check:
        raise ValueError("--against belongs to --check; a manifest is split by itself")
    if by not in _KEPT_TOGETHER:
        raise ValueError(f"--by {by}; allowed: {', '.join(_KEPT_TOGETHER)}")
    clips = [clip._replace(group=_KEPT_TOGETHER[by](clip)) for clip in read_manifest(manifest, root=root)]
    if out is None:
        beside = [clip for path in against or () for clip in read_manifest(path, root=root)]
        raise typer.Exit(_check([*clips, *beside], as_json))
    if ignore_given:
        clips = [clip._replace(split="") for clip in clips]
    done = complete_splits(clips, fractions=_fractions(fractions), seed=seed)
    write_manifest(done, out, root=root)
    report = split_report(done, given={clip.clip_id for clip in clips if clip.split})
    if as_json:
        _echo_json({"manifest": out, "labels": _label_rows(report)})
        return
    _print_labels(report)
    typer.echo(f"{len(done)} clips, {sum(not clip.split for clip in clips)} splits made; manifest: {out}")


def _fractions(text: str) -> dict[str, float]:
    """Of train=0.6,dev=0.2,test=0.2."""
    try:
        return {name: float(share) for name, _, share in (part.partition("=") for part in text.split(","))}
    except ValueError:
        raise ValueError(f"--fractions {text}; give them as train=0.6,dev=0.2,test=0.2") from None


def _check(clips: Sequence[Clip], as_json: bool) -> int:
    """Print what stands where and what stands twice; the exit status."""
    from sonar.data.splits import split_report, torn

    if without := sum(not clip.split for clip in clips):
        raise ValueError(f"{without} clips have no split; make them by `sonar data split MANIFEST --out MANIFEST`")
    labels, groups, files = split_report(clips), torn(clips, "group"), torn(clips, "sha256")
    duplicates = _duplicates(clips)
    if as_json:
        torn_things = {"torn_groups": groups, "torn_files": files}
        _echo_json({"labels": _label_rows(labels), **torn_things, **_duplicate_rows(duplicates)})
    else:
        _print_labels(labels)
        _print_list("groups in several splits", (f"{name}: {', '.join(found)}" for name, found in groups.items()))
        _print_list("files in several splits", (f"{name}: {', '.join(found)}" for name, found in files.items()))
        _print_duplicates(duplicates)
    return FOUND if groups or files or duplicates.across_splits() or duplicates.unreadable else 0


def _duplicates(clips: Sequence[Clip]) -> DuplicateReport:
    from sonar.cli.data.progress import told_progress
    from sonar.data.guard import Guard
    from sonar.data.leakage import duplicate_report

    with told_progress("fingerprints") as told, Guard() as guard:

        def run(function: Any, items: Iterable[Any]) -> Iterable[Any]:
            for done, found in enumerate(guard.map(function, items, chunk=8), start=1):
                told(done, len(clips))
                yield found

        return duplicate_report(clips, run=run)


def _print_labels(report: Sequence[LabelSplits]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="clips (groups)")
    for name in ("corpus", "label"):
        table.add_column(name, overflow="fold")
    for name in ("train", "dev", "test"):
        table.add_column(name, justify="right")
    for row in report:
        held = (f"{held.clips} ({held.groups})" for held in (row.train, row.dev, row.test))
        table.add_row(row.corpus, row.label or "-", *held)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table, markup=False)
    _print_list("not in every split", (f"{row.corpus}: {row.reason}" for row in report if row.reason))


def _print_duplicates(found: DuplicateReport) -> None:
    for name, pairs in (("across splits", found.across_splits()), ("inside a split", found.within_splits())):
        _print_list(f"duplicates {name}", map(_described, pairs))
    _print_list("too short to fingerprint", (clip.clip_id for clip in found.too_short))
    _print_list("too little sound to fingerprint", (clip.clip_id for clip in found.featureless))
    _print_list("unreadable", (f"{bad.path}: {bad.reason}" for bad in found.unreadable))


def _described(pair: Duplicate) -> str:
    near = f", {pair.error_rate:.0%} of bits differ, offset {pair.offset_s:+.2f} s" if pair.kind == "near" else ""
    return f"{pair.kind}: {pair.one.clip_id} ({pair.one.split}) = {pair.other.clip_id} ({pair.other.split}){near}"


def _print_list(title: str, lines: Iterable[str]) -> None:
    found = list(lines)
    typer.echo(f"{title}: {len(found)}")
    for line in found[:_SHOWN]:
        typer.echo(f"  {line}")
    if len(found) > _SHOWN:
        typer.echo(f"  and {len(found) - _SHOWN} more; --json gives all")


def _label_rows(report: Sequence[LabelSplits]) -> list[dict[str, Any]]:
    return [
        row._asdict() | {"train": row.train._asdict(), "dev": row.dev._asdict(), "test": row.test._asdict()}
        for row in report
    ]


def _duplicate_rows(found: DuplicateReport) -> dict[str, Any]:
    pairs = [
        pair._asdict()
        | {"one": pair.one.clip_id, "other": pair.other.clip_id}
        | {"one_split": pair.one.split, "other_split": pair.other.split}
        for pair in found.duplicates
    ]
    return {
        "num_clips": found.num_clips,
        "duplicates": pairs,
        "too_short": [clip.clip_id for clip in found.too_short],
        "featureless": [clip.clip_id for clip in found.featureless],
        "unreadable": [bad._asdict() for bad in found.unreadable],
    }


def _echo_json(value: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(value, indent=1))
