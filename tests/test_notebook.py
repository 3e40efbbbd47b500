"""The notebook reads a finished sweep, draws it and changes nothing."""

import hashlib
from pathlib import Path

import nbformat
import pytest
from fake_sweep import write_finished
from nbclient import NotebookClient

from sonar.search.results import picked_id

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_notebook_runs_on_a_finished_sweep_and_leaves_it_as_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = write_finished(tmp_path / "bio")
    monkeypatch.setenv("SONAR_SWEEP", str(tmp_path / "bio"))
    path = root / "notebooks" / "compare_runs.ipynb"
    before, on_disk = digests(tmp_path), path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) <= 15
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    text = "\n".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert f"'{picked_id(state)}'" in text and "hypervolume: " in text
    assert all(trial_id in text for trial_id, record in state.trials.items() if record.status == "told")
    assert digests(tmp_path) == before
    assert path.read_bytes() == on_disk
