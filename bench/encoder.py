"""BEATs-base, ours against the public architecture done plainly, and how much of the machine's product rate it uses.

    python bench/encoder.py runs/bench [--full]

Both have the same weights. "Forward" is that of a frozen encoder in eval mode; "with backward" that of a trained one,
with its dropout. The peak is the fastest product that torch makes of two matrices, at the feed-forward layer's shape,
whichever of its libraries makes it; it takes its turn beside what is set against it. Both sides keep freed memory, as
ours does in use (bench/heap.py). A share counts two operations for each multiply-add of every product and convolution
(`forward_flop`) and nothing else; with backward three times as many.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from harness import MATMUL, Matmul, Section, fastest_rate, main, ratios, spread, table, take_turns, threads
from plain_weights import plain_encoder
from torch import Tensor, nn

from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.fbank import PATCH_SIZE, num_frames
from sonar.model.heap import freed_memory_kept
from sonar.model.products import Linear

SAMPLE_RATE = 16_000
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GOALS = {"fp32": 0.90, "bf16": 0.75}  # shares of the peak, forward, on clips of 10 s


class Case(NamedTuple):
    """One row of the table."""

    device: str
    num_threads: int
    precision: str
    clips: int
    seconds_per_clip: int
    backward: bool


def forward_flop(config: EncoderConfig, clips: int, num_patches: int) -> float:
    """Two for every multiply-add of one forward pass over all patches."""
    width, rows = config.width, clips * num_patches
    patch = PATCH_SIZE**2 * config.patch_width + config.patch_width * width
    position = width * (width // config.position_groups) * config.position_kernel
    layer = 4 * width**2 + 2 * width * config.ffn_width + 2 * num_patches * width
    return 2.0 * rows * (patch + position + config.num_layers * layer)


class ByConvolution(Matmul):
    """The same product as `Linear` makes it where torch's own is the slower one."""

    def __init__(self, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
        """Draw operands."""
        super().__init__(dtype, shape=shape)
        rows, inner, columns = shape
        self._rows, self._layer = torch.randn(rows, inner), Linear(inner, columns, bias=False)

    def __call__(self) -> None:
        """One product."""
        with torch.no_grad():
            self._layer(self._rows)


def way_of(encoder: nn.Module, log_mel: Tensor, case: Case) -> Callable[[], None]:
    """One pass as the case has it."""

    def run() -> None:
        with torch.autocast(case.device, torch.bfloat16, case.precision == "bf16"):
            with torch.set_grad_enabled(case.backward):
                last = encoder(log_mel).last
        if case.backward:
            encoder.zero_grad(set_to_none=True)
            last.float().square().mean().backward()

    return run


def measure(case: Case, ours: BeatsEncoder, plain: nn.Module, rounds: int) -> dict[str, Any]:
    """Seconds of ours, plain and the peak in turns, and what they come to."""
    for encoder in (ours, plain):
        encoder.train(case.backward).requires_grad_(case.backward)
    log_mel = torch.randn(case.clips, num_frames(case.seconds_per_clip * SAMPLE_RATE), 128, device=case.device)
    num_patches = log_mel.shape[1] // PATCH_SIZE * 8
    dtype, shape = PRECISIONS[case.precision], (case.clips * 496 if case.device == "cuda" else MATMUL[0], *MATMUL[1:])
    products = {"mm": Matmul(dtype, case.device, shape)}
    if case.device == "cpu" and dtype == torch.float32:
        products["convolution"] = ByConvolution(dtype, shape)
    encoders = {"ours": way_of(ours, log_mel, case), "plain": way_of(plain, log_mel, case)}
    with threads(case.num_threads), freed_memory_kept():
        seconds = take_turns({**encoders, **products}, rounds)
    rates = {name: fastest_rate(product, seconds[name]) for name, product in products.items()}
    flop = forward_flop(ours.config, case.clips, num_patches) * (3 if case.backward else 1)
    shares = {name: [flop / value / max(rates.values()) for value in seconds[name]] for name in encoders}
    return {**case._asdict(), "seconds": seconds, "flop_per_s": rates, "flop": flop, "shares": shares}


def row_of(found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    seconds, shares, clips = found["seconds"], found["shares"], found["clips"]
    rate = {name: [clips / value for value in seconds[name]] for name in ("ours", "plain")}
    return [
        "with backward" if found["backward"] else "forward",
        found["precision"],
        f"{clips} x {found['seconds_per_clip']} s",
        str(found["num_threads"]),
        spread(rate["ours"]),
        spread(rate["plain"]),
        spread(ratios(seconds["plain"], seconds["ours"]), ".2f"),
        spread(shares["ours"], ".0%"),
        spread(shares["plain"], ".0%"),
        " / ".join(f"{value / 1e9:.0f}" for value in found["flop_per_s"].values()),
    ]


def cases(full: bool) -> list[Case]:
    """What is measured, smallest first."""
    if torch.cuda.is_available():
        count = torch.get_num_threads()
        return [Case("cuda", count, name, 32, 10, back) for name in PRECISIONS for back in (False, True)]
    cores = os.cpu_count() or 1
    counts = sorted({1, cores}) if full else [cores]
    sizes = [(2, 1), (2, 5), (2, 10), (8, 10)] if full else [(2, 10)]
    found = [
        Case("cpu", count, name, clips, seconds, backward)
        for count in counts
        for name in PRECISIONS
        for clips, seconds in sizes
        for backward in (False, True)
    ]
    return [case for case in found if not (case.backward and (case.clips, case.seconds_per_clip) != (2, 10))]


def section(full: bool) -> Section:
    """All cases and what they say of the goals."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = BeatsEncoder(EncoderConfig()).initialise(torch.Generator().manual_seed(0)).to(device)
    plain = plain_encoder(ours)
    rounds = 20 if device == "cuda" else 5 if full else 3
    records = [measure(case, ours, plain, rounds) for case in cases(full)]
    header = ["pass", "precision", "clips", "threads", "ours, clips/s", "plain, clips/s", "times as fast"]
    header += ["ours, share of peak", "plain, share of peak", "peak, GFLOP/s: mm / convolution"]
    lines = table(header, [row_of(record) for record in records])
    return Section("Encoder: BEATs-base", [*lines, *map(verdict, filter(is_goal, records))], {"cases": records})


def is_goal(found: dict[str, Any]) -> bool:
    """Whether the goal speaks of this case: forward, clips of 10 s, the smallest batch measured."""
    return not found["backward"] and found["seconds_per_clip"] == 10 and found["clips"] in (2, 32)


def verdict(found: dict[str, Any]) -> str:
    """The goal beside the figure."""
    goal, share = GOALS[found["precision"]], statistics.median(found["shares"]["ours"])
    against = share * max(found["flop_per_s"].values()) / found["flop_per_s"]["mm"]
    return (
        f"- {found['precision']}, {found['num_threads']} threads: goal {goal:.0%} of the peak, {share:.0%} "
        f"{'reached' if share >= goal else '**missed**'}; of torch.mm's rate {against:.0%}."
    )


if __name__ == "__main__":
    main(section, "encoder")
