"""The architecture as a test: sweep scripts that stay small, commands that exist."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from sonar.cli.app import app
from sonar.cli.sweep.run import run_script
from sonar.config import dotted_keys
from sonar.experiment import TrialConfig
from sonar.search.space import Sweep

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "sweeps").glob("*.py"))


def imported(script: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


EDGE = ("pyarrow", "ray", "mlflow", "optuna", "soundfile")
CORE = """
import sys
sys.modules.update(dict.fromkeys({edge}))  # importing one of them fails
import sonar.train.loop, sonar.train.model_objective, sonar.train.tokenizer_objective
"""


def test_the_loop_and_the_objectives_need_nothing_of_the_edge() -> None:
    found = subprocess.run([sys.executable, "-c", CORE.format(edge=EDGE)], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_there_is_a_sweep_for_every_domain_of_the_paper() -> None:
    assert {script.stem for script in SCRIPTS} >= {"bio", "music", "speech", "env"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_sweep_script_is_short_and_imports_only_sonar(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= 40
    assert imported(script) == {"sonar"}
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    assert f"sweeps/{script.name}" in docstring, "its first lines tell the command"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_sweep_script_holds_one_sweep_of_keys_that_exist(script: Path) -> None:
    sweep = runpy.run_path(str(script))["SWEEP"]
    assert isinstance(sweep, Sweep)
    assert sweep.domain == script.stem
    assert sweep.space.keys() <= dotted_keys(TrialConfig).keys()
    assert sweep.objectives == {"plasticity": "max", "forgetting_rate": "min"}


def commands(document: Path) -> list[list[str]]:
    """The `sonar ...` lines of a document's code blocks, split as a shell would, without comments."""
    found = []
    for block in re.findall(r"```\w*\n(.*?)```", document.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if "sonar " in line else []
            if words and Path(words[0]).name == "sonar":
                found.append(words[1:])
    return found


def resolve(words: list[str]) -> Any:
    """The command that the words lead to; typer may bring a click of its own."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"sonar {' '.join(words)}: there is no {word!r}"
        command = command.commands[word]
    return command


DOCUMENTS = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster").glob("*.md")})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_command_of_the_documents_exists_with_its_options(document: Path) -> None:
    for words in commands(document):
        command = resolve([word for word in words if not word.startswith("-")])
        if command.name in ("run", "plan"):  # they take the options of the script that they are given
            command = typer.main.get_command(run_script(runpy.run_path(str(ROOT / "sweeps" / "bio.py"))["SWEEP"]))
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"sonar {' '.join(words)}: {sorted(used - known)}"


def test_a_command_that_does_not_exist_is_found_out(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("```bash\nsonar front shw runs/bio  # nothing\n```\n")
    assert commands(document) == [["front", "shw", "runs/bio"]]
    with pytest.raises(AssertionError, match="there is no 'shw'"):
        resolve(commands(document)[0])
