"""What a step that finds no memory says: the micro-batch that would have fitted, found by trying.

A figure worked out from shapes would have to know of every workspace and of what lies scattered in the memory; a trial
of the step in smaller parts does. Where the system kills a process instead of refusing it memory, nothing can be said.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sonar.data.batch import Batch
from sonar.model.fbank import SAMPLE_RATE
from sonar.train.accumulation import Precision
from sonar.train.objective import Moment

GIB = 2**30
# What torch says in a bare RuntimeError: its allocator on the CPU, and libraries that only tell that they failed.
REFUSALS = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive",
            "could not create a memory object", "could not execute a primitive",
            "CUBLAS_STATUS_ALLOC_FAILED")  # fmt: skip
T = TypeVar("T")


class BatchTooLargeError(ValueError):
    """A step found no memory; names the stage, the step, what there is, the micro-batch that fits and its setting."""


class MemoryNeed(NamedTuple):
    """The step that found no memory, and all that trying it in smaller parts needs.

    Attributes:
        moment: which step.
        objective: an `Objective`, not wrapped for data parallel training: no other rank takes part in a trial.
        batch: of this worker.
        num_parts: micro-batches that the batch was split into.
        precision: of the forward pass.
        optimizer: of the parameters that are trained.
        advise: what to set so that the batch is split into so many parts; None: not even single clips fit.
    """

    moment: Moment
    objective: nn.Module
    batch: Batch
    num_parts: int
    precision: Precision
    optimizer: torch.optim.Optimizer
    advise: Callable[[int | None], str]


def plain_advice(num_parts: int | None) -> str:
    """What to do where no configuration is known: see `MemoryNeed.advise`."""
    return "Give shorter clips" if num_parts is None else f"Split the batch into {num_parts} micro-batches"


def within_memory(step: Callable[[], T], need: MemoryNeed) -> T:
    """What `step` returns.

    Raises:
        BatchTooLargeError: it found no memory. Parameters and optimiser are as they were, gradients are gone.
    """
    try:
        return step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        refusal = str(error)
    # Only out here have the frames of the pass that failed let go of its activations.
    raise _shortage(need) from RuntimeError(refusal)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator refused: that of a GPU, one of torch on the CPU, or Python's own."""
    is_named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_named or any(refusal in str(error) for refusal in REFUSALS)


def _shortage(need: MemoryNeed) -> BatchTooLargeError:
    _release(need.optimizer)
    device = _parameters(need.optimizer)[0].device
    num_clips = len(need.batch.clip_ids)
    fitting = next((parts for parts in _finer(num_clips, need.num_parts) if _fits(need, parts)), None)
    _release(need.optimizer)
    found = "not even one clip fits" if fitting is None else f"a micro-batch of {num_clips // fitting} fits, as tried"
    return BatchTooLargeError(
        f"{need.moment}: no memory for a micro-batch of {num_clips // need.num_parts} clips of "
        f"{need.batch.waveform.shape[1] / SAMPLE_RATE:g} s; {memory_there_is(device)}; {found}. "
        f"{need.advise(fitting)}"
    )


def memory_there_is(device: torch.device) -> str:
    """How much memory the steps of this process may take, in words."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        return f"the GPU has {total / GIB:.1f} GiB, {(free + own) / GIB:.1f} of them for this process"
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    limited = "" if limit == resource.RLIM_INFINITY else f", of which this process may take {limit / GIB:.1f} (ulimit)"
    return f"the machine has {os.sysconf('SC_PHYS_PAGES') * resource.getpagesize() / GIB:.1f} GiB{limited}"


def _fits(need: MemoryNeed, num_parts: int) -> bool:
    """Whether the step finds memory in so many parts."""
    _release(need.optimizer)
    try:
        _rehearse(need, num_parts)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False  # whatever a library failed for: the whole batch found no memory
    return True


def _rehearse(need: MemoryNeed, num_parts: int) -> None:
    """Two parts of the step but for its update, on this rank alone: the second beside the gradient of the first.

    A part takes a few clips more than it will have, since memory comes in pieces and no two steps take the same.
    """
    parameters = _parameters(need.optimizer)
    is_first = not need.optimizer.state  # Adam makes both its averages in the first step
    averages = [torch.empty_like(parameter) for parameter in parameters for _ in range(2) if is_first]
    size = len(need.batch.clip_ids) // num_parts
    part = need.batch.rows(0, with_margin(size)).to(parameters[0].device)
    held: tuple[Tensor | None, ...] = ()
    for _ in range(2):
        with torch.autocast(part.waveform.device.type, torch.bfloat16, need.precision == "bf16"):
            losses = need.objective(part, torch.Generator())
        gradient = torch.autograd.grad(losses.total, parameters, allow_unused=True)  # leaves data parallel hooks alone
        held = held or gradient
    del averages


def with_margin(num_clips: int) -> int:
    """So many clips and an eighth more, rounded up; a single one alone."""
    return num_clips if num_clips == 1 else num_clips + -(-num_clips // 8)


def _finer(num_clips: int, num_parts: int) -> Iterator[int]:
    """Numbers of equal parts above `num_parts`, rising."""
    return (parts for parts in range(num_parts + 1, num_clips + 1) if num_clips % parts == 0)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _release(optimizer: torch.optim.Optimizer) -> None:
    """Let go of gradients and of what nobody refers to."""
    optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
