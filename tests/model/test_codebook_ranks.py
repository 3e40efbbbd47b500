"""Two ranks over gloo: the same bits on both, and the result of one rank with the global batch."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from sonar.model.codebook import Codebook, CodebookConfig

NUM_CODES, WIDTH, STEPS = 64, 8, 3
SIZES = (50, 70)  # tokens of each rank, not equal


def codebook_of(seed: int) -> Codebook:
    codebook = Codebook(NUM_CODES, WIDTH)
    codebook.initialise(torch.Generator().manual_seed(seed))
    codebook.set_usage(torch.arange(NUM_CODES // 2))
    return codebook


def tokens_of(step: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(sum(SIZES), WIDTH, generator=generator).split(SIZES)


def train(rank: int, folder: str, anchor: str) -> None:
    """One of two ranks; each has a generator of its own, as careless callers will."""
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    generator = torch.Generator().manual_seed(rank)
    codebook = codebook_of(0)
    config = CodebookConfig(anchor=anchor)  # type: ignore[arg-type]
    revived = 0
    for step in range(STEPS):
        tokens = tokens_of(step)[rank]
        revived += codebook.update(tokens, codebook.assign(tokens), config, generator).revived
    started = Codebook(NUM_CODES, WIDTH)
    started.init_kmeans(tokens_of(9)[rank], generator)
    torch.save(
        {"trained": codebook.state_dict(), "started": started.state_dict(), "revived": revived},
        f"{folder}/{rank}.pt",
    )
    distributed.destroy_process_group()


def run_ranks(folder: Path, anchor: str) -> list[dict]:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(train, (str(folder), anchor), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("anchor", ["centroid", "probrandom"])
def test_ranks_agree_bitwise_and_with_one_rank_on_the_global_batch(tmp_path: Path, anchor: str) -> None:
    first, second = run_ranks(tmp_path, anchor)
    assert first["revived"] == second["revived"] > 0
    for part in ("trained", "started"):
        for key in first[part]:
            assert torch.equal(first[part][key], second[part][key]), (part, key)
    if anchor == "probrandom":
        return  # one rank draws from another generator state only by chance of its batch: no common anchors
    alone = codebook_of(0)
    for step in range(STEPS):
        tokens = torch.cat(tokens_of(step))
        alone.update(tokens, alone.assign(tokens), CodebookConfig(), torch.Generator().manual_seed(0))
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(first["trained"][key], value, atol=1e-6, rtol=1e-5)
