"""SONAR against its controls on one's own audio: every preset over several seeds, as one Markdown table.

    python bench/controls.py runs/controls/bio --domain bio --data BIRDS --prior GENERAL --prior MORE --seeds 3

Runs that are done are kept in the folder and not repeated. Sampling, masks and crops differ between seeds; the base,
the splits and the probe do not, so the spread is that of training alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sonar.cli.app import guarded
from sonar.cli.options import Assignments, Base, ConfigFile, Data, Domain, Prior, Storage, TokenizerFile, configure
from sonar.experiment import PRESETS, SMALL_SCALE, apply_preset
from sonar.files import write_whole_text
from sonar.provenance import provenance
from sonar.search.audit import run_all
from sonar.search.prepare import Sources, prepare
from sonar.search.repeats import seeded
from sonar.search.run import ray_session

COVERAGE, PERPLEXITY = "tokenizer/codebook/coverage", "tokenizer/codebook/perplexity"
CHURN = "tokenizer/label_churn"
COLUMNS = "target, prior, plasticity, forgetting, worst, coverage %, perplexity, churn %, seconds".split(", ")


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder of the runs; give it again to go on.")],
    domain: Domain = "bio",
    data: Data = None,
    prior: Prior = None,
    base: Base = None,
    tokenizer: TokenizerFile = None,
    config_file: ConfigFile = None,
    assignments: Assignments = None,
    storage: Storage = Path("runs"),
    presets: Annotated[str, typer.Option(help="Presets with commas between; all of them where not given.")] = "",
    seeds: Annotated[int, typer.Option(help="Runs of each preset.")] = 3,
    jobs: Annotated[int, typer.Option(help="Runs at a time, one thread each.")] = 2,
) -> None:
    """Run every preset over the seeds and print the table."""
    config = configure(SMALL_SCALE, config_file, assignments, base, tokenizer)
    names = [name.strip() for name in presets.split(",")] if presets else list(PRESETS)
    runs = {f"{name}-{seed}": seeded(apply_preset(config, name), seed) for name in names for seed in range(seeds)}
    with ray_session("local"):
        prepared = prepare(config, Sources(domain, data, tuple(prior or ())), storage, typer.echo)
        outcomes = run_all(runs, prepared, folder, jobs, typer.echo)
    failed = [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if outcome.reason is not None]
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed, so there is no table: {'; '.join(failed)}")
    results = {name: outcome.metrics or {} for name, outcome in outcomes.items()}
    made_by = provenance()
    table = "\n".join(_table(names, seeds, results))
    typer.echo(f"\n{table}\n\ncommit {made_by['commit']}{' (changed)' if made_by['dirty'] else ''}, {seeds} seeds")
    write_whole_text(folder / "table.md", table + "\n")
    write_whole_text(folder / "provenance.json", json.dumps(made_by, indent=1))


def _table(names: Sequence[str], seeds: int, results: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Rows of Markdown: mean and standard deviation over the seeds, percent where not a codebook's number."""
    yield f"| preset | {' | '.join(COLUMNS)} |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name in names:
        rows = [_values(results[f"{name}-{seed}"]) for seed in range(seeds)]
        cells = [_mean_and_spread([row[column] for row in rows if column in row]) for column in COLUMNS]
        yield f"| {name} | {' | '.join(cells)} |"


def _values(metrics: Mapping[str, float]) -> dict[str, float]:
    values = {
        "target": _mean_probe(metrics, "target"),
        "prior": _mean_probe(metrics, "prior"),
        "plasticity": metrics["plasticity"],
        "forgetting": metrics["forgetting_rate"],
        "worst": metrics["forgetting_worst"],
        "seconds": metrics["trial_seconds"],
    }
    if COVERAGE in metrics:  # a run without a tokenizer stage has none
        values |= {"coverage %": 100 * metrics[COVERAGE], "perplexity": metrics[PERPLEXITY]}
        values["churn %"] = 100 * metrics[CHURN]
    return values


def _mean_probe(metrics: Mapping[str, float], role: str) -> float:
    """Over all tasks of a role, each in its own metric."""
    return statistics.fmean(value for key, value in metrics.items() if key.startswith(f"probe/{role}/"))


def _mean_and_spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(bench)
    guarded(app)
