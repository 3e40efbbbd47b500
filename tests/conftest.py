"""What every test has: few examples of hypothesis without a deadline, torch on one thread, and a clean end."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # also of the processes that tests start
# The same examples every time where a verdict hangs on them; new ones at every other run.
settings.register_profile("sonar", deadline=None, max_examples=25, derandomize="CI" in os.environ)
settings.load_profile("sonar")


@pytest.fixture(autouse=True, scope="session")
def torch_on_one_thread() -> Iterator[None]:
    """Only where a test module has imported torch: a test of the configuration need not wait for it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def root() -> Path:
    """Of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def run_sonar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `sonar ...` as a user does; gives its exit status, output and errors."""
    from sonar import cli as cli_module

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sonar", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli_module.cli()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def local_ray(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray for one module: RAY_CPUS (two) and RAY_DASHBOARD (none) of the module; its sockets need a short path."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray")
    ray.init(
        "local",
        num_cpus=getattr(request.module, "RAY_CPUS", 2),
        include_dashboard=getattr(request.module, "RAY_DASHBOARD", False),
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


_exit_status = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_exit_status] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End without the interpreter's teardown, once the summary is out.

    This process starts Ray several times, and MLflow, pyarrow, faiss and torch beside it. Their native threads have
    once been seen to end it with a segmentation fault while the interpreter was closing, after every test had passed. A
    sweep starts Ray once, in a process of its own, whose exit status tests/test_end_to_end.py asserts.
    """
    if _exit_status in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_exit_status])
