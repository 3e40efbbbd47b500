"""Batches made ahead of the step that needs them, so that a step does not wait for its audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from sonar.data.batch import Batch

BATCHES_AHEAD = 2  # held beside the one in use; memory stays bounded however slow the steps are


class Prefetch:
    """The batches of consecutive steps, in order, made by one thread; a context manager.

    A batch is a function of its step, so making it early changes nothing, and a run that is resumed at any step gets
    the batches that it would have got. Reading and copying samples lets other threads run.
    """

    def __init__(self, batch: Callable[[int], Batch], steps: range, *, pinned: bool = False) -> None:
        """`batch` of each of `steps`; `pinned`: in memory that a GPU can copy from by itself."""
        self._batch, self._left, self._pinned = batch, iter(steps), pinned
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._ahead: deque[Future[Batch]] = deque()
        for _ in range(BATCHES_AHEAD):
            self._ask()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread; only a batch that is being made is waited for."""
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Batch:
        """The next batch; what making it raised is raised here."""
        if not self._ahead:
            raise StopIteration
        made = self._ahead.popleft().result()
        self._ask()
        return made

    def _ask(self) -> None:
        for step in self._left:
            self._ahead.append(self._pool.submit(self._make, step))
            return

    def _make(self, step: int) -> Batch:
        batch = self._batch(step)
        return batch.pinned() if self._pinned else batch
