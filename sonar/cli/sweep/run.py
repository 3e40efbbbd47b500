"""`sonar sweep run`, and the command line of a sweep script."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonar.cli.front.tables import print_table
from sonar.cli.options import (
    Assignments,
    Base,
    ConfigFile,
    Converge,
    Data,
    Halving,
    Prior,
    RayAddress,
    Storage,
    TokenizerFile,
    configure,
    shrink,
)

if TYPE_CHECKING:
    from sonar.search.journal import SweepState
    from sonar.search.run import SweepEnd
    from sonar.search.settings import RunOptions
    from sonar.search.space import Sweep


STOPPED = 75  # exit status of a sweep that can be resumed, the "try again later" of sysexits.h
ABORTED = 130  # the shell's status of what Ctrl-C ended


def register_run(app: typer.Typer) -> None:
    """Add the command to `app`."""
    settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    app.command("run", context_settings=settings)(run_file)


def run_script(sweep: Sweep, act: Callable[[Sweep, RunOptions], None] | None = None) -> Callable[[], Any]:
    """The command line of a sweep script, as a function that reads sys.argv.

    Args:
        sweep: of the script.
        act: what to do with it under its options; None: run it.
    """

    def command(
        data: Data = None,
        prior: Prior = None,
        base: Base = None,
        tokenizer: TokenizerFile = None,
        config_file: ConfigFile = None,
        assignments: Assignments = None,
        storage: Storage = Path("runs"),
        name: Annotated[str | None, typer.Option(help="Of the sweep's folder and experiment.")] = None,
        trials: Annotated[int | None, typer.Option(help="Searched trials; anchors come on top.")] = None,
        smoke: Annotated[bool, typer.Option("--smoke", help="Few short trials: minutes on two cores.")] = False,
        resume: Annotated[bool, typer.Option("--resume", help="Continue a sweep of this name.")] = False,
        keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep checkpoints that are on no front.")] = False,
        seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
        ray_address: RayAddress = "auto",
        concurrent: Annotated[int | None, typer.Option(help="Trials at a time; default: as many as fit.")] = None,
        sampler: Annotated[str | None, typer.Option(help="tpe, nsga2, nsga3, gp or random.")] = None,
        budget_hours: Annotated[float | None, typer.Option(help="Launch no trial after this many hours.")] = None,
        converge: Converge = None,
        warm_start: Annotated[Path | None, typer.Option(help="Folder of an earlier sweep to begin from.")] = None,
        audit: Annotated[int | None, typer.Option(help="Seeds of the base that are run first: the noise.")] = None,
        halving: Halving = False,
        mlflow: Annotated[str | None, typer.Option(help="Tracking URI; default: SQLite in the storage.")] = None,
    ) -> None:
        from sonar.search.convergence import parse_convergence
        from sonar.search.halving import HalvingConfig
        from sonar.search.prepare import Sources
        from sonar.search.settings import RunOptions

        shaped = shrink(sweep) if smoke else sweep
        given = _given(
            num_trials=trials,
            name=name,
            sampler=sampler,
            budget_hours=budget_hours,
            converge=parse_convergence(converge) if converge else None,
            warm_start=str(warm_start) if warm_start else None,
            audit_seeds=audit,
            halving=HalvingConfig() if halving else None,
        )
        shaped = replace(shaped, base=configure(shaped.base, config_file, assignments, base, tokenizer), **given)
        options = RunOptions(
            sources=Sources(sweep.domain, data, tuple(prior or ())),
            storage=storage,
            ray=ray_address,
            max_concurrent=concurrent,
            seed=seed,
            resume=resume,
            mlflow=mlflow,
            keep_all=keep_all,
        )
        (act or run)(shaped, options)

    command.__doc__ = f"Search the {sweep.domain} sweep: {', '.join(sweep.space)}."
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command()(command)
    return script


def _given(**values: Any) -> dict[str, Any]:
    """What the command line says; the rest is as the script has it."""
    return {name: value for name, value in values.items() if value is not None}


def run_file(context: typer.Context, script: Annotated[Path, typer.Argument(help="A script with a SWEEP.")]) -> None:
    """Run a sweep script; its options follow its name (`sonar sweep run sweeps/bio.py --help`)."""
    run_script(read_script(context, script))(context.args)  # type: ignore[call-arg]


def read_script(context: typer.Context, script: Path) -> Sweep:
    """The SWEEP of a script; `--help` in its place shows the command's own, since after it comes the script's."""
    if script == Path("--help"):
        typer.echo(context.get_help())
        raise typer.Exit
    if not script.is_file():
        raise FileNotFoundError(f"no sweep script at {script}; see sweeps/bio.py for one")
    found = runpy.run_path(str(script)).get("SWEEP")
    if found is None:
        raise ValueError(f"{script} defines no SWEEP; see sweeps/bio.py for one")
    return found


def run(sweep: Sweep, options: RunOptions) -> None:
    """Run a sweep, mirror it, and say what came out of it.

    Raises:
        SystemExit: with `STOPPED` where it was asked to stop, with `ABORTED` where a second signal ended it.
    """
    from sonar.report import write_report
    from sonar.search.results import ranked_trials
    from sonar.search.run import run_sweep
    from sonar.search.snapshot import snapshot
    from sonar.tracking import MirrorThread, MlflowMirror

    folder = options.storage / sweep.name
    uri = options.mlflow or f"sqlite:///{(options.storage / 'mlflow.db').resolve()}"
    mirror = MirrorThread(MlflowMirror(uri, sweep.name).sync)
    try:
        end = run_sweep(sweep, options, _say, lambda state: mirror.submit(snapshot(state, finished=False)))
        _exit_if_stopped(end, folder)
        state = end.state
        page = write_report(state, folder)
        artifacts = [folder / name for name in ("front.html", "front.csv", "trials.csv")]
        mirror.submit(snapshot(state, finished=True, artifacts=artifacts))
    except KeyboardInterrupt:  # Aborted, or what compiled code that it rises through makes of it
        typer.echo(f"aborted; running trials go on from their last saved state: sonar sweep resume {folder}")
        raise SystemExit(ABORTED) from None
    finally:
        is_mirrored = mirror.close()
    print_table("all trials, best rank first", sorted(ranked_trials(state), key=lambda ranked: ranked.rank))
    _print_outcome(state)
    typer.echo(f"report: {page}\ntrials: {folder / 'trials.csv'}")
    typer.echo(f"MLflow: {uri}{'' if is_mirrored else ' (incomplete: run again with --resume to mirror the rest)'}")
    typer.echo(f"  to look: mlflow server --backend-store-uri {uri} --port 5000, then http://127.0.0.1:5000")


def _exit_if_stopped(end: SweepEnd, folder: Path) -> None:
    if end.stopped_by is None:
        return
    paused = sum(not record.is_finished for record in end.state.trials.values())
    typer.echo(
        f"stopped by {end.stopped_by}; {paused} trials saved their state, nothing is lost: sonar sweep resume {folder}"
    )
    raise SystemExit(STOPPED)


def _say(line: str) -> None:
    """Progress goes out at once, also into a pipe."""
    typer.echo(line)
    sys.stdout.flush()


def _print_outcome(state: SweepState) -> None:
    from sonar.search.results import pick

    try:
        ranked, chosen = pick(state)
    except ValueError as error:
        typer.echo(f"no pick: {error}")
        return
    typer.echo(f"{chosen.explanation}\ncheckpoint: {ranked.candidate.checkpoint}")
