"""Our modules against stored outputs of the public BEATs code (see check_template.py for the comparison)."""

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import sonar.model.fbank

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
BASE = Path(os.environ.get("SONAR_GOLDEN_BASE", PROJECT.parent / "shared" / "golden" / "base"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"golden_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_checks(folder: Path) -> tuple[int, int]:
    """Checks made and checks failed."""
    template = load_module("check_template")
    report = template.Report()
    with torch.random.fork_rng():
        template.check_set(load_module("adapter"), str(folder), report)
    return report.n, report.bad


@pytest.mark.timeout(60)
def test_tiny_models_reproduce_the_reference() -> None:
    checks, failed = run_checks(HERE / "cases")
    assert checks >= 99 and failed == 0


def test_the_checks_notice_a_small_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("waves.npz", "tolerances.json", "enc_tiny.cfg.json", "enc_tiny.state.npz"):
        (tmp_path / name).symlink_to(HERE / "cases" / name)
    (tmp_path / "case.enc_tiny.one_1s.npz").symlink_to(HERE / "cases" / "case.enc_tiny.one_1s.npz")
    cases = json.loads((HERE / "cases" / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps([case for case in cases if case["case"] == "enc_tiny.one_1s"]))
    assert run_checks(tmp_path) == (3, 0)
    monkeypatch.setattr(sonar.model.fbank, "PREEMPHASIS", 0.969)
    assert run_checks(tmp_path) == (3, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not BASE.is_dir(), reason=f"no base vectors at {BASE}; SONAR_GOLDEN_BASE names another place")
def test_base_models_reproduce_the_reference() -> None:
    checks, failed = run_checks(BASE)
    assert checks >= 38 and failed == 0
