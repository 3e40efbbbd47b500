"""The command line: what it says, and that a user's error ends with status 2, its message and no traceback."""

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_driver import SWEEP
from fake_sweep import write_finished
from tiny import make_base

from sonar import cli as cli_module
from sonar.checkpoint import load_checkpoint, save_checkpoint
from sonar.cli.options import SMOKE_TRIALS, configure, shrink
from sonar.evaluate.metrics import ScoreMatrix, continual_metrics
from sonar.experiment import TrialConfig
from sonar.search.convergence import Convergence
from sonar.search.halving import HalvingConfig
from sonar.search.journal import Journal
from sonar.search.run import JOURNAL_FILE
from sonar.search.sequence import Domain, SequencePlan, SequenceResult
from sonar.search.stopping import STOP_FILE, StopRequest


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


@pytest.fixture
def sonar(
    run_sonar: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`run_sonar` in an empty folder, without Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sonar.search.run.ray_session", lambda address: contextlib.nullcontext())
    return run_sonar


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_finished(tmp_path / "runs" / "bio")
    return tmp_path / "runs" / "bio"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_checkpoint(make_base(), tmp_path / "model")
    return tmp_path / "model"


def test_the_installed_command_runs_without_arguments_of_its_own(root: Path) -> None:
    target = re.search(r'^sonar = "([\w.]+):(\w+)"$', (root / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert target is not None
    assert getattr(importlib.import_module(target[1]), target[2]) is cli_module.cli


HEAVY = ("torch", "ray", "mlflow", "optuna", "sklearn")


def heavy_after(code: str) -> set[str]:
    """What of the heavy packages a fresh Python has imported after `code`."""
    code = f"import sys\n{code}\nsys.stderr.write(' '.join(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("module", ["sonar", "sonar.cli", "sonar.search.space"])
def test_importing_it_waits_for_nothing_heavy(module: str) -> None:
    assert heavy_after(f"import {module}") == set()


SHOW_ALL_HELP = """
import typer
from sonar.cli.app import app

def show(command, words):
    app([*words, "--help"], standalone_mode=False)
    for name, below in getattr(command, "commands", {}).items():
        show(below, [*words, name])

show(typer.main.get_command(app), [])
"""


def test_the_help_of_every_command_waits_for_nothing_heavy() -> None:
    assert heavy_after(SHOW_ALL_HELP) == set()
    assert heavy_after("import optuna") == {"optuna"}, "the check must notice what is imported"


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_command_that_takes_a_script_has_help_of_its_own_and_the_scripts(sonar, root: Path, command: str) -> None:
    status, own, _ = sonar("sweep", command, "--help")
    assert status == 0 and "A script with a SWEEP" in own
    status, scripts, _ = sonar("sweep", command, root / "sweeps" / "bio.py", "--help")
    assert status == 0 and "--budget-hours" in scripts


def test_help_names_every_command(sonar) -> None:
    status, out, _ = sonar("--help")
    assert status == 0
    for command in (
        "sweep",
        "front",
        "data",
        "pretrain",
        "adapt",
        "sequence",
        "embed",
        "evaluate",
        "export",
        "report",
        "compare",
        "noise",
    ):
        assert command in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pretrain", "--out", "x", "--set", "training.seeed=1"), "training.seed"),
        (("pretrain", "--out", "x", "--set", "training.batch_size=many"), "training.batch_size"),
        (("adapt", "--out", "x", "--preset", "dctp"), "no preset is called 'dctp'"),
        (("adapt", "--out", "x", "--data", "missing/birds"), "no corpus at missing/birds"),
        (("sequence", "x", "--domain", "bio"), "a sequence has two domains or more, not 1"),
        (("sequence", "x", "--domain", "bio=", "--domain", "music"), "--domain bio= names no folder"),
        (("sequence", "x", "--domain", "a=missing/birds", "--domain", "bio"), "no corpus at missing/birds"),
        (("sequence", "x", "--domain", "bats", "--domain", "bio"), "no synthetic corpus 'bats'"),
        (("sequence", "x", "--domain", "bio", "--domain", "env", "--preset", "dctp"), "no preset is called 'dctp'"),
        (("compare", "a/trial-0", "b/trial-0"), "no evaluation at a/trial-0"),
        (("noise", "x", "--seeds", "1"), "1 seeds have no spread; give 2 or more"),
        (("noise", "x", "--from", "a"), "no evaluation at a"),
        (("data", "scan", "missing/birds", "--out", "x.csv"), "no corpus at missing/birds"),
        (("embed", "missing/birds", "--model", "nothing.pt", "--out", "x"), "no checkpoint file at nothing.pt"),
        (("export", "--model", "nothing", "--out", "x"), "no checkpoint file at nothing"),
        (("front", "show", "."), "holds no sweep (no journal.jsonl)"),
        (("front", "pick", "nowhere"), "nowhere holds no sweep"),
        (("sweep", "status", "nowhere"), "nowhere holds no sweep"),
        (("sweep", "stop", "nowhere"), "nowhere holds no sweep"),
        (("sweep", "resume", "nowhere"), "nowhere holds no sweep"),
        (("report", "nowhere"), "nowhere holds no sweep"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_a_users_error_ends_with_2_and_its_message(sonar, arguments: tuple[str, ...], message: str) -> None:
    status, _, err = sonar(*arguments)
    assert status == 2
    assert err.startswith("error: ") and message in err
    assert "Traceback" not in err


def test_an_unknown_option_ends_with_2_too(sonar) -> None:
    status, _, err = sonar("pretrain", "--out", "x", "--sett", "a=1")
    assert status == 2 and "--sett" in err


def test_a_hostile_checkpoint_is_refused_and_not_run(sonar, tmp_path: Path) -> None:
    torch.save({"model": Evil(), "cfg": {}}, tmp_path / "evil.pt")
    status, _, err = sonar("export", "--model", "evil.pt", "--out", "out.pt")
    assert status == 2 and "evil.pt" in err and "refused" in err
    assert not (tmp_path / "hacked").exists() and not (tmp_path / "out.pt").exists()


def test_a_traceback_is_there_for_who_asks(sonar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONAR_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["sonar", "front", "show", "nowhere"])
    with pytest.raises(FileNotFoundError, match="nowhere holds no sweep"):
        cli_module.cli()


def test_the_front_of_a_finished_sweep_is_shown_and_picked_from(sonar, sweep: Path) -> None:
    status, out, _ = sonar("front", "show", sweep)
    assert status == 0 and "trial-" in out
    status, out, _ = sonar("front", "pick", sweep, "--limit", "2")
    assert status == 0 and "forgetting is at most 2 %" in out and "checkpoint: " in out
    status, _, err = sonar("front", "pick", sweep, "--limit", "-90")
    assert status == 2 and "no point forgets at most -90 %" in err
    status, _, err = sonar("front", "pick", sweep, "--rule", "best")
    assert status == 2 and "there are epsilon, knee, weights, contribution" in err


def test_the_status_of_a_sweep_names_what_failed(sonar, sweep: Path) -> None:
    status, out, _ = sonar("sweep", "status", sweep)
    assert status == 0
    assert "13/14 done 0 run 1 fail" in out and "trial-002 failed: plasticity is nan" in out


def test_a_sweep_that_nobody_runs_is_not_asked_to_stop(sonar, sweep: Path) -> None:
    status, out, _ = sonar("sweep", "stop", sweep)
    assert status == 0 and f"nobody runs {sweep}; resume it by: sonar sweep resume {sweep}" in out
    assert not (sweep / STOP_FILE).exists()


def test_a_running_sweep_is_asked_to_stop_from_another_process_and_its_owner_is_named(sonar, sweep: Path) -> None:
    with Journal(sweep / JOURNAL_FILE):
        status, out, _ = sonar("sweep", "status", sweep)
        assert status == 0 and f"running, owned by process {os.getpid()} on " in out
        status, out, _ = sonar("sweep", "stop", sweep)
        assert status == 0 and f"asked process {os.getpid()} on " in out
        assert StopRequest(sweep)() and f"(process {os.getpid()})" in StopRequest(sweep).by()
        status, _, err = sonar("sweep", "stop", sweep, "--wait", "0.1")
        assert status == 2 and "has not ended within 0.1 s" in err
    status, out, _ = sonar("sweep", "status", sweep, "--json")
    assert json.loads(out)["word"] == "finished" and json.loads(out)["owner"] is None


def test_a_sweep_of_before_its_options_were_kept_is_resumed_by_its_script(sonar, sweep: Path) -> None:
    status, _, err = sonar("sweep", "resume", sweep)
    assert status == 2 and "the journal does not say: options; resume by the script" in err


PLANNED = """
from sonar import Sweep, uniform
from sonar.experiment import SMALL_SCALE
SWEEP = Sweep(domain="bio", base=SMALL_SCALE, space={"sampling.replay_ratio": uniform(0.3, 0.7)},
              objectives={"plasticity": "max", "forgetting_rate": "min"}, num_trials=4)
"""


def test_a_plan_says_what_a_run_would_do_and_leaves_nothing(
    sonar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonar.search.disk import ModelBytes
    from sonar.search.plan import Interval, Measured

    step = Interval(0.1, 0.2, 0.3)
    stages = {"tokenizer": step, "predictor": step, "model": step}
    measured = Measured("a test", stages, Interval(1.0, 2.0, 3.0), ModelBytes(1_000_000, 3_000_000), {})
    monkeypatch.setattr("sonar.search.plan.measured_before", lambda *given: measured)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    (tmp_path / "mine.py").write_text(PLANNED)
    status, out, _ = sonar("sweep", "plan", "mine.py", "--concurrent", "2", "--set", "training.seed=9")
    assert status == 0
    for line in (
        "    seed: 9",
        "anchor-base: the preset",
        "trial-000: sampling.replay_ratio=0.5",
        "2 trials at a time, each on 2 CPU, 2 threads",
        "a step of model: 0.2 s (0.1 to 0.3)",
        "disk: checkpoints need ",
        "devices: 0.107 device-hours (0.0533 to 0.16)",
        "clock: 0.0267 h (0.0133 to 0.04)",
    ):
        assert line in out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
    huge = measured._replace(size=ModelBytes(10**15, 10**15))
    monkeypatch.setattr("sonar.search.plan.measured_before", lambda *given: huge)
    status, _, err = sonar("sweep", "plan", "mine.py")
    assert status == 2 and "checkpoints need " in err and "has room for " in err
    status, _, err = sonar(
        "sweep", "plan", "mine.py", "--set", "training.num_workers=4", "--set", "training.batch_size=32"
    )
    assert status == 2 and "a trial of 4 workers needs 4.01 CPUs; the cluster has 4" in err


def test_an_export_is_a_file_that_loads_again(sonar, model: Path, tmp_path: Path) -> None:
    status, out, _ = sonar("export", "--model", model, "--out", "beats.pt")
    assert status == 0 and "largest difference" in out
    assert load_checkpoint(tmp_path / "beats.pt").encoder.config.width == 32
    status, _, err = sonar("export", "--model", model, "--out", "x", "--to", "onnx")
    assert status == 2 and "cannot export to 'onnx'; there is: beats" in err


def test_a_script_without_a_sweep_is_refused(sonar, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("SWEEPS = 1\n")
    status, _, err = sonar("sweep", "run", "mine.py")
    assert status == 2 and "mine.py defines no SWEEP" in err
    status, _, err = sonar("sweep", "run", "missing.py")
    assert status == 2 and "missing.py" in err


def test_a_sweep_script_takes_its_options_after_its_name(sonar, root: Path) -> None:
    status, out, _ = sonar("sweep", "run", root / "sweeps" / "bio.py", "--help")
    assert status == 0 and "--smoke" in out and "--resume" in out
    status, _, err = sonar("sweep", "run", root / "sweeps" / "bio.py", "--set", "distil.model_weight=1")
    assert status == 2 and "unknown key" in err and "distill" in err


def test_how_a_sweep_searches_and_ends_can_be_said_on_the_command_line(
    sonar, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    monkeypatch.setattr("sonar.cli.sweep.run.run", lambda sweep, *others: heard.append(sweep))
    script = root / "sweeps" / "bio.py"
    sonar("sweep", "run", script)
    sonar(
        "sweep",
        "run",
        script,
        "--sampler",
        "nsga3",
        "--budget-hours",
        "1.5",
        "--converge",
        "8:2.5",
        "--warm-start",
        "x",
        "--halving",
        "--set",
        "evaluation.every=20",
    )
    plain, told = heard
    assert (plain.halving, told.halving) == (None, HalvingConfig())
    assert (plain.sampler, plain.budget_hours, plain.converge, plain.warm_start) == ("tpe", None, None, None)
    rule = Convergence(num_trials=8, gain_percent=2.5)
    assert (told.sampler, told.budget_hours, told.converge, told.warm_start) == ("nsga3", 1.5, rule, "x")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--sampler", "cmaes", "sampler: got 'cmaes'; allowed: tpe, nsga2, nsga3, gp, random"),
        ("--converge", "soon", "converge: got 'soon'; allowed: TRIALS:PERCENT, as in 8:1"),
        ("--budget-hours", "0", "budget_hours: got 0.0; allowed: a number of hours above 0"),
        ("--warm-start", "nowhere", "nowhere holds no sweep"),
        ("--halving", None, "evaluation.every is 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_anything_starts(
    sonar, root: Path, option: str, value: str | None, message: str
) -> None:
    words = (option,) if value is None else (option, value)
    status, _, err = sonar("sweep", "run", root / "sweeps" / "bio.py", *words)
    assert status == 2 and message in err


def test_a_yaml_file_stands_between_the_script_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("distill: {model_weight: 2, temperature: 0.2}\ntraining: {seed: 4}\n", encoding="utf-8")
    monkeypatch.setenv("SONAR__DISTILL__TEMPERATURE", "0.4")
    found = configure(TrialConfig(), file, ["training.seed=5"])
    assert (found.distill.model_weight, found.distill.temperature, found.training.seed) == (2.0, 0.4, 5)


def test_a_sequence_takes_its_domains_in_order_and_prints_the_matrix(sonar, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = ScoreMatrix(
        stages=("base", "bio", "music"),
        tasks=("general", "birds", "genres"),
        learned_at=(0, 1, 2),
        scores=((80.0, 40.0, 60.0), (76.0, 70.0, 54.0), (72.0, 63.0, 90.0)),
    )
    plans = []

    def fake(config: TrialConfig, plan: SequencePlan, *arguments: object) -> SequenceResult:
        plans.append((plan, config.distill.l2sp_weight, config.training.seed))
        metrics = continual_metrics(matrix, {"birds": 10.0, "genres": 20.0})
        return SequenceResult(matrix, metrics, {"bio": "a", "music": "b"})

    monkeypatch.setattr("sonar.search.sequence.run_sequence", fake)
    domains = ("--domain", "bio=folder/of=birds", "--domain", "music", "--replay-domains", "--prior", "p")
    status, out, _ = sonar("sequence", "chain", *domains, "--preset", "l2sp", "--set", "training.seed=3")
    assert status == 0
    plan = SequencePlan(
        domains=(Domain("bio", "folder/of=birds"), Domain("music", None)), prior=("p",), replay_domains=True
    )
    assert plans == [(plan, 0.1, 3)]
    assert re.search(r"music\W+72\.0\W+63\.0\W+90\.0", out) and "birds (bio)" in out and "general (prior)" in out
    for line in ("forgetting_rate general: +10.00", "backward_transfer: -7.00", "chain/matrix.csv"):
        assert line in out


@pytest.mark.parametrize(("asked", "left"), [(0, 0), (2, 2), (7, 2)])
def test_a_small_sweep_has_few_runs_the_audits_among_them(asked: int, left: int) -> None:
    small = shrink(replace(SWEEP, audit_seeds=asked))
    assert (small.num_trials, small.audit_seeds) == (SMOKE_TRIALS, left)
    assert small.base.training.model_steps == 20
