"""`sonar sweep plan`: a dry run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.sweep.run import read_script, run_script

if TYPE_CHECKING:
    from sonar.search.plan import Cost, Interval, Measured
    from sonar.search.settings import RunOptions
    from sonar.search.source import Suggestion
    from sonar.search.space import Sweep
    from sonar.search.tuner import TrialSlots

SHOWN = 3  # searched configurations


def register_plan(app: typer.Typer) -> None:
    """Add the command to `app`."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command("plan", context_settings=settings)(plan_file)


def plan_file(context: typer.Context, script: Annotated[Path, typer.Argument(help="A script with a SWEEP.")]) -> None:
    """Say what `sonar sweep run` with the same options would do and cost; nothing is searched or kept."""
    run_script(read_script(context, script), plan)(context.args)  # type: ignore[call-arg]


def plan(sweep: Sweep, options: RunOptions) -> None:
    """Print the plan.

    Raises:
        ValueError: it cannot fit: no trial fits the cluster, or what the sweep leaves does not fit the storage.
    """
    import ray

    from sonar.search.disk import check_disk, forecast_disk
    from sonar.search.plan import cost_of, first_suggestions, measured_before
    from sonar.search.plan_probe import probe
    from sonar.search.run import ray_session
    from sonar.search.tuner import plan_slots

    first = first_suggestions(sweep, options, SHOWN)
    measured = measured_before(options.storage, sweep, options)
    with ray_session(options.ray):
        cluster = ray.cluster_resources()
        slots = plan_slots(sweep.base.training.num_workers, cluster, options.max_concurrent)
        if measured is None:
            typer.echo("no sweep over this audio has run in the storage: timing some steps")
            held = {"num_cpus": slots.threads, "num_gpus": int(cluster.get("GPU", 0) >= 1)}
            measured = ray.get(ray.remote(probe).options(**held).remote(sweep.base, slots.threads))
    _print_search(sweep, options, first)
    _print_slots(slots, sweep)
    forecast = forecast_disk(sweep.base, measured.size, sweep.num_runs, slots.num_concurrent, keep_all=options.keep_all)
    folder = (options.storage / sweep.name).resolve()
    check_disk(forecast, next(one for one in (folder, *folder.parents) if one.exists()), typer.echo)
    try:
        cost = cost_of(sweep, first, slots, measured)
    except ValueError as error:
        typer.echo(f"cost: unknown; {error}")
        return
    _print_cost(cost, measured)


def _print_search(sweep: Sweep, options: RunOptions, first: list[Suggestion]) -> None:
    import yaml

    from sonar.search.settings import settings_of

    plain = settings_of(sweep, options)
    shown: dict[str, Any] = {name: plain[name] for name in plain if name not in ("provenance", "options")}
    typer.echo(yaml.safe_dump(shown, sort_keys=False).rstrip())
    folder = options.storage / sweep.name
    if (folder / "journal.jsonl").exists():
        typer.echo(f"{folder} already holds a sweep: run continues it with --resume")
    for one in first:
        values = ", ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in one.params.items()
        )
        typer.echo(f"{one.trial_id}: {values or 'the preset'}")


def _print_slots(slots: TrialSlots, sweep: Sweep) -> None:
    held = ", ".join(f"{amount:g} {name}" for name, amount in slots.resources.items())
    workers = sweep.base.training.num_workers
    nested = f" and {workers} workers of one device each" if workers > 1 else ""
    typer.echo(f"{slots.num_concurrent} trials at a time, each on {held}{nested}, {slots.threads} threads")


def _print_cost(cost: Cost, measured: Measured) -> None:
    typer.echo(f"measured: {measured.basis}")
    for stage, seconds in measured.step_s.items():
        typer.echo(f"  a step of {stage}: {_range(seconds, 's')}")
    if measured.rest_s is None:
        typer.echo("  not counted: start and evaluation of a trial, and preparing the audio; nobody has timed them")
    else:
        typer.echo(f"  a trial beside its steps: {_range(measured.rest_s, 's')}")
    if measured.base_s is not None:
        typer.echo(f"  the base, once: about {measured.base_s / 60:.0f} min, not counted")
    typer.echo(f"devices: {_range(cost.device_s.times(1 / 3600), 'device-hours')}")
    typer.echo(f"clock: {_range(cost.clock_s.times(1 / 3600), 'h')}")


def _range(values: Interval, unit: str) -> str:
    return f"{values.typical:.3g} {unit} ({values.low:.3g} to {values.high:.3g})"
