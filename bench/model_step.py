"""One optimiser step of the model stage, by part: ours against the same step done plainly (bench/plain.py).

    python bench/model_step.py runs/bench [--full]

Plainly: every patch through encoder and teacher, codes on the fly. Ours: the visible patches only, codes kept. Both
compute the same losses (tests/test_plain_step.py) and keep freed memory (bench/heap.py). BEATs-base, clips of 10 s of
noise, three quarters hidden. Where there is a GPU the loop itself is timed there too, against the bf16 rate of its
matrix products; torch is all it needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import Matmul, Section, fastest_rate, main, ratios, seconds_of, spread, table
from steps import PARTS, TimedStep, base_models, loop_seconds, noise_batch, plain_models, step_flop

from sonar.model.encoder import EncoderConfig
from sonar.model.heap import freed_memory_kept
from sonar.train.accumulation import Precision

GOAL_FASTER, GOAL_SAME_PRECISION, GOAL_UTILISATION = 5.0, 3.0, 0.45
PRECISIONS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU_CLIPS, GPU_CLIPS = 2, (32, 128, 256)
PATCHES = 496  # of 10 s

Turns = dict[str, list[dict[str, float]]]  # way -> seconds by part, of every round


def section(full: bool) -> Section:
    """Markdown and numbers."""
    lines, record = cpu_section(5 if full else 2)
    if torch.cuda.is_available():
        more, on_gpu = gpu_section(40 if full else 20)
        lines, record = lines + more, record | {"gpu": on_gpu}
    else:
        lines.append("Not measured on a GPU: there is none here.")
    return Section("A step of the model stage", lines, record)


@freed_memory_kept()
def cpu_section(rounds: int) -> tuple[list[str], dict[str, Any]]:
    """By part, of two clips of 10 s."""
    batch, models = noise_batch(CPU_CLIPS), base_models(EncoderConfig())
    sides = {"plain": TimedStep(plain_models(models), batch), "ours": TimedStep(models, batch)}
    steps: dict[str, Callable[[], dict[str, float]]] = {
        f"{side} {precision}": partial(step, precision) for precision in PRECISIONS for side, step in sides.items()
    }
    matmuls = {precision: Matmul(dtype) for precision, dtype in PRECISIONS.items()}
    found: Turns = {name: [] for name in steps}
    peaks = dict.fromkeys(PRECISIONS, 0.0)
    for number in range(rounds + 1):
        for name, step in steps.items():
            seconds = step()
            if number:  # the first is the warm-up
                found[name].append(seconds)
        for precision, matmul in matmuls.items():
            peaks[precision] = max(peaks[precision], *(matmul.flop / seconds_of(matmul) for _ in range(20)))
    totals = {name: [sum(seconds.values()) for seconds in turns] for name, turns in found.items()}
    flop = step_flop(models, batch)
    lines = [*_by_part(found, totals), *_against_goals(totals), _utilisation(totals, peaks, flop), ""]
    return lines, {"seconds": found, "flop": flop, "matmul": peaks}


def _by_part(found: Turns, totals: dict[str, list[float]]) -> list[str]:
    """Seconds of every part and of the whole."""
    rows = [
        [part, *(f"{statistics.median(seconds[part] for seconds in turns):.3f}" for turns in found.values())]
        for part in PARTS
    ]
    rows.append(["**whole step**", *(spread(values) for values in totals.values())])
    title = f"Seconds for {CPU_CLIPS} clips of 10 s, BEATs-base, on the CPU, in turns:"
    return [title, "", *table(["part", *found], rows)]


def _against_goals(totals: dict[str, list[float]]) -> list[str]:
    """How many times as fast, and whether that was asked for."""
    pairs = (("plain fp32", "ours bf16", GOAL_FASTER), ("plain fp32", "ours fp32", GOAL_SAME_PRECISION),
             ("plain bf16", "ours bf16", GOAL_SAME_PRECISION))  # fmt: skip
    rows = []
    for slow, fast, goal in pairs:
        values = ratios(totals[slow], totals[fast])
        reached = "reached" if statistics.median(values) >= goal else "**missed**"
        rows.append([f"{fast} against {slow}", spread(values), f"{goal:g}", reached])
    return table(["", "times as fast", "goal", ""], rows)


def _utilisation(totals: dict[str, list[float]], peaks: dict[Precision, float], flop: float) -> str:
    """What a step needs, against the rate of matrix products."""
    shares = [
        f"in {name} {flop / statistics.median(totals[f'ours {name}']) / peak:.0%} of torch's matrix products "
        f"({peak / 1e9:.0f} GFLOP/s)"
        for name, peak in peaks.items()
    ]
    return f"A step of ours needs {flop / 1e9:.0f} GFLOP: {', '.join(shares)}."


def gpu_section(num_steps: int) -> tuple[list[str], dict[str, Any]]:
    """The loop itself on a GPU, in bf16."""
    rows, record = [], {}
    for clips in GPU_CLIPS:
        models = base_models(EncoderConfig(), device="cuda")
        batch = noise_batch(clips)
        torch.cuda.reset_peak_memory_stats()
        seconds = loop_seconds(models, batch, num_steps, "bf16")
        gib = torch.cuda.max_memory_allocated() / 2**30
        flop, rate = step_flop(models, batch.to(torch.device("cuda"))), gpu_rate(clips)
        share = flop / statistics.median(seconds) / rate
        milliseconds = spread([1e3 * value for value in seconds])
        pace = f"{clips / statistics.median(seconds):.0f}"
        rows.append([str(clips), milliseconds, pace, f"{gib:.1f}", f"{share:.0%}", f"{rate / 1e12:.0f}"])
        record[str(clips)] = {"seconds": seconds, "gib": gib, "flop": flop, "rate": rate, "share": share}
    header = ["clips of 10 s", "ms a step", "clips/s", "GiB at most", "of the matmul rate", "matmul, TFLOP/s"]
    title = f"The loop on {torch.cuda.get_device_name()}, bf16, codes kept (goal: {GOAL_UTILISATION:.0%} of the rate):"
    return [title, "", *table(header, rows)], record


def gpu_rate(clips: int) -> float:
    """FLOP/s of bf16 products at the shape of the feed-forward layer."""
    matmul = Matmul(torch.bfloat16, "cuda", (clips * PATCHES, 768, 3072))
    return fastest_rate(matmul, [seconds_of(matmul) for _ in range(10)])


if __name__ == "__main__":
    main(section, "model_step")
