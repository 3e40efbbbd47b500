"""Run a function on files that may crash or hang their decoder: in worker processes, each item under limits.

A decoder is C code fed with strangers' bytes. Here it can take down its worker only: the item becomes an
`AudioError` that says what happened, a new worker takes over, and every other item comes through.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import TimeoutError as Expired
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from sonar.data.audio_errors import AudioError
from sonar.data.guard_worker import WorkerContext, settle, start_worker

_TURN_S = 0.5  # a worker reports back after so long, so that a task's time limit is about that of its last item
_TASKS_AHEAD = 32  # per worker: what may be in flight or wait to be yielded
_LOOK_S, _IDLE_S = 1.0, 30.0  # how often is looked whether workers work; how long they may not
_BREAKS = 3  # of the pool in a row, without an item done in between

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one item may take.

    Attributes:
        seconds: of wall time, more than 0.
        memory_mb: that a worker may allocate beyond what it holds after its imports, at least 1. It bounds the data
            segment (RLIMIT_DATA), which is memory that can be written to; the address space (RLIMIT_AS) also counts
            libraries and reservations of thread pools, which grow with the number of cores. On Linux only.
    """

    seconds: float = 60.0
    memory_mb: int = 4096

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.memory_mb < 1:
            raise ValueError(
                f"limits of {self.seconds} s and {self.memory_mb} MB for an item; give more than 0 s and at least 1 MB"
            )


class _Task(NamedTuple):
    items: Sequence[Any]
    future: ProcessFuture[list[Any]]


class Guard:
    """A pool of worker processes that outlives what its items do; a context manager.

    Workers start in about 0.2 s, from a script, a test or a Ray task alike, and import only what the mapped function
    needs. They are stopped at once when the block ends, and end by themselves when their parent is killed.
    """

    def __init__(self, *, workers: int | None = None, limits: Limits | None = None) -> None:
        """`workers`: processes; None: as many as there are CPUs that this process may use."""
        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}; give 1 or more, or None for all CPUs")
        self._workers = workers or _usable_cpus()
        self._limits = limits or Limits()
        self._breaks = 0

    def __enter__(self) -> Guard:
        self._pool = self._new_pool()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def map(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, chunk: int = 1
    ) -> Iterator[_Result | AudioError]:
        """Results in the order of the items, which are taken from their iterable as the work goes on.

        One `map` at a time. If a worker fails with several items in hand, they are run again one by one.

        Args:
            function: importable by its name, or a `partial` of such; it, items and results can be pickled.
            items: any number.
            chunk: items that travel to a worker together: more than 1 where each takes milliseconds.

        Yields:
            What the function returned; or an AudioError: the one that it raised, or one that says that the worker
            crashed, took too long, or asked for too much memory.

        Raises:
            ValueError: a worker cannot import the function.
            RuntimeError: workers do not start.
            Exception: any other that the function raises.
        """
        _check_importable(function)
        run = partial(_run_in_turn, function, self._limits.memory_mb)
        source = iter(items)
        tasks: deque[_Task] = deque()
        while True:
            while len(tasks) < _TASKS_AHEAD * self._workers and (taken := list(islice(source, chunk))):
                tasks.append(self._schedule(run, taken))
            if not tasks:
                return
            yield from self._finish_first(run, tasks)

    def _finish_first(self, run: Callable[..., list[Any]], tasks: deque[_Task]) -> list[Any]:
        """Wait for the first task; what it leaves undone comes first again, one by one if its worker failed."""
        items, future = tasks.popleft()
        outcomes: list[Any] = []
        undone = [items]
        try:
            self._await(future, tasks)
            outcomes = future.result()
            undone = [items[len(outcomes) :]]
        except BrokenProcessPool as error:
            self._replace_pool(run, tasks, error)
        except (ProcessExpired, Expired) as error:
            if len(items) == 1:
                outcomes, undone = [_what_happened(error, self._limits)], []
            else:
                undone = [[item] for item in items]
        tasks.extendleft(self._schedule(run, part) for part in reversed(undone) if part)
        self._breaks = 0 if outcomes else self._breaks
        return outcomes

    def _await(self, future: ProcessFuture[list[Any]], tasks: deque[_Task]) -> None:
        """Wait, but not for ever: pebble forgets a task whose worker ends between taking it and saying so."""
        idle_s = 0.0
        while not wait([future], timeout=_LOOK_S).done:
            running = future.running() or any(task.future.running() for task in tasks)
            idle_s = 0.0 if running else idle_s + _LOOK_S
            if idle_s >= _IDLE_S:
                raise BrokenProcessPool(f"no worker has taken a task for {_IDLE_S:g} s")

    def _schedule(self, run: Callable[..., list[Any]], items: Sequence[Any]) -> _Task:
        try:
            future = self._pool.schedule(run, args=(items,), timeout=self._limits.seconds + _TURN_S)
        except RuntimeError as error:  # the pool broke a moment ago
            future = ProcessFuture()
            future.set_exception(BrokenProcessPool(str(error)))
        return _Task(items, future)

    def _replace_pool(self, run: Callable[..., list[Any]], tasks: deque[_Task], error: BrokenProcessPool) -> None:
        """Start again where workers end before they have said which task they took; what is not done is scheduled."""
        self._breaks += 1
        if self._breaks == _BREAKS:
            raise RuntimeError(f"{_BREAKS} times worker processes ended or idled before an item was done: {error}")
        self._stop()
        self._pool = self._new_pool()
        for place, (items, future) in enumerate(tasks):
            if not future.done() or future.exception():
                tasks[place] = self._schedule(run, items)

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(self._workers, initializer=start_worker, context=WorkerContext())

    def _stop(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _run_in_turn(function: Callable[[Any], Any], memory_mb: int, items: Sequence[Any]) -> list[Any]:
    """In a worker: outcomes of as many items as fit into one turn, at least of the first."""
    settle(memory_mb)
    began, outcomes = time.monotonic(), list[Any]()
    for item in items:
        try:
            outcomes.append(function(item))
        except AudioError as error:
            outcomes.append(error)
        except MemoryError:
            outcomes.append(AudioError(f"the decoder asked for more than {memory_mb} MB of memory", "memory"))
        if time.monotonic() - began > _TURN_S:
            break
    return outcomes


def _what_happened(error: BaseException, limits: Limits) -> AudioError:
    if isinstance(error, ProcessExpired):
        code = int(error.exitcode)
        return AudioError(
            f"the decoder crashed ({signal.Signals(-code).name if code < 0 else f'exit status {code}'})", "crash"
        )
    return AudioError(f"the decoder took longer than {limits.seconds:g} s", "hang")


def _check_importable(function: Callable[..., Any]) -> None:
    while isinstance(function, partial):
        function = function.func
    if function.__module__ == "__main__" or "<" in function.__qualname__:
        raise ValueError(f"{function.__qualname__} cannot be imported by a worker; define it at the top of a module")


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else multiprocessing.cpu_count()
