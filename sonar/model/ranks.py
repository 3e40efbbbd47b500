"""What the codebook needs of torch.distributed; every function is the identity on one rank."""

# Shapes: N tokens of this rank, d code width.

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Ranks that train together; 1 when torch.distributed is not in use."""
    in_use = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if in_use else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, the same bits on all; `values` itself is overwritten."""
    if world_size() > 1:
        distributed.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """All ranks' rows in the order of ranks, the same on all.

    Memory: the rows of all ranks twice, 4 d bytes each (32 clips of 10 s with d = 256: 16 MB).

    Args:
        rows: (N, d), N may differ between ranks.

    Returns:
        (sum of N, d).
    """
    if world_size() == 1:
        return rows
    count = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    distributed.all_gather(counts, count)
    sizes = [int(size) for size in counts]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: rows.shape[0]] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def shared_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on `device` in the same state on all ranks, seeded by one draw of rank 0's generator."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device).to(device)
    if world_size() > 1:
        distributed.broadcast(seed, src=0)
    return torch.Generator(device).manual_seed(int(seed))
