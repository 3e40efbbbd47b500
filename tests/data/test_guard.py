import ctypes
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sonar.data.audio import AudioError
from sonar.data.guard import Guard, Limits


def work(item: str) -> str:
    """Stands for a decoder: every item but those named does well."""
    match item.partition(":")[0]:
        case "segv":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            time.sleep(1e6)
        case "reason":
            raise AudioError("not to be trusted")
        case "memory":
            np.ones(300 * 2**20, dtype=np.uint8)
        case "bug":
            raise KeyError("bug")
    return item.upper()


def loaded_modules(_: int) -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


def process_and_main(_: int) -> tuple[int, bool]:
    return os.getpid(), hasattr(sys.modules["__main__"], "PARENT_ONLY")


def texts(outcomes: object) -> list[str]:
    return [str(outcome) for outcome in outcomes]  # type: ignore[attr-defined]


@pytest.mark.parametrize("chunk", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_whatever_one_item_does_all_others_come_through_in_order(chunk: int) -> None:
    items = [f"good:{n}" for n in range(20)]
    for place, fault in ((2, "segv"), (5, "exit"), (6, "reason"), (9, "memory"), (13, "hang"), (14, "segv:2")):
        items[place] = fault
    expected = [item.upper() for item in items]
    expected[2] = expected[14] = "the decoder crashed (SIGSEGV)"
    expected[5] = "the decoder crashed (exit status 3)"
    expected[6] = "not to be trusted"
    expected[9] = "the decoder asked for more than 200 MB of memory"
    expected[13] = "the decoder took longer than 0.3 s"
    with Guard(workers=2, limits=Limits(seconds=0.3, memory_mb=200)) as guard:
        outcomes = list(guard.map(work, items, chunk=chunk))
    assert texts(outcomes) == expected
    assert [place for place, outcome in enumerate(outcomes) if isinstance(outcome, AudioError)] == [2, 5, 6, 9, 13, 14]


def test_a_worker_that_crashes_with_every_item_does_not_end_the_pool() -> None:
    with Guard(workers=1) as guard:
        assert set(texts(guard.map(work, ["exit"] * 6))) == {"the decoder crashed (exit status 3)"}


class Fatal:
    """Ends the first process that unpickles it, which is a worker that has not said yet what it took."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return die_once, (self.marker,)


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return "late"


def test_a_task_that_is_lost_with_its_worker_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonar.data.guard._LOOK_S", 0.1)
    monkeypatch.setattr("sonar.data.guard._IDLE_S", 2.0)
    with Guard(workers=1) as guard:
        assert list(guard.map(work, [Fatal(tmp_path / "marker"), "good"])) == ["LATE", "GOOD"]  # type: ignore[list-item]


def test_workers_that_cannot_work_end_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonar.data.guard.start_worker", end)
    message = "3 times worker processes ended or idled before an item was done"
    with Guard(workers=1) as guard, pytest.raises(RuntimeError, match=message):
        list(guard.map(work, ["good"]))


def end() -> None:
    os._exit(1)


def test_items_are_taken_only_as_they_are_needed() -> None:
    taken = []

    def items():  # type: ignore[no-untyped-def]
        for number in range(100_000):
            taken.append(number)
            yield f"good:{number}"

    with Guard(workers=1) as guard:
        outcomes = guard.map(work, items(), chunk=2)
        assert next(outcomes) == "GOOD:0"
        assert len(taken) <= 2 * 33


def test_a_bug_is_no_bad_file() -> None:
    with Guard(workers=1) as guard, pytest.raises(KeyError, match="bug"):
        list(guard.map(work, ["bug"]))


def test_workers_import_no_more_than_the_function_needs() -> None:
    with Guard(workers=1) as guard:
        (modules,) = guard.map(partial(loaded_modules), [0])
    assert isinstance(modules, set)
    assert not modules & {"torch", "ray", "pyarrow", "mlflow"} - {"pytest"}


def test_what_a_worker_cannot_import_is_refused() -> None:
    with Guard(workers=1) as guard, pytest.raises(ValueError, match="cannot be imported by a worker; define it"):
        next(guard.map(lambda item: item, [1]))


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory_mb": 0}, {"seconds": float("nan")}])
def test_limits_that_allow_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give more than 0 s and at least 1 MB"):
        Limits(**limits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers is 0; give 1 or more"):
        Guard(workers=0)


SCRIPT = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from sonar.data.guard import Guard
    from test_guard import process_and_main, work
    PARENT_ONLY = True
    with Guard(workers=2) as guard:
        print(*next(guard.map(process_and_main, [0])), flush=True)
        list(guard.map(work, {items!r}))
"""


def start(tmp_path: Path, *items: str) -> "subprocess.Popen[str]":
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), items=items))
    return subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def gone(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_a_script_without_a_main_guard_does_not_run_in_its_workers(tmp_path: Path) -> None:
    out, err = start(tmp_path, "good").communicate(timeout=30)
    assert out.split()[1] == "False", err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupting_the_parent_ends_it_and_its_workers(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, "hang", "hang", *["good:" + "x" * 50_000] * 20)
    worker = int(process.stdout.readline().split()[0])  # type: ignore[union-attr]
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)
    assert gone(worker, within_s=5)


@pytest.mark.ray
def test_it_works_in_a_ray_task(local_ray: None) -> None:
    import ray

    def guarded(items: list[str], path: list[str]) -> list[str]:
        sys.path[:] = path
        module = importlib.import_module("test_guard")
        with Guard(workers=1) as guard:
            return [str(outcome) for outcome in guard.map(module.work, items)]

    expected = ["A", "the decoder crashed (SIGSEGV)", "B"]
    path = [str(Path(__file__).parent), *sys.path]
    assert ray.get(ray.remote(guarded).remote(["a", "segv", "b"], path)) == expected
