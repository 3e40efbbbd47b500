"""Two data-parallel workers of one thread against one worker of one thread; and what N workers would do.

Three ways take turns: one worker alone, two that know nothing of each other, and two that train together. The second
tells what this machine has for two at all; the third what the exchange takes of it. Goal: 0.9 of twice one worker.
"""

from __future__ import annotations

import statistics
from typing import Any

from harness import Section, main, ratios, spread, table
from scaling import Network, Parts, efficiency, step_seconds
from stage_steps import CLIP_SECONDS
from two_workers import WAYS, Found, Job, measure

from sonar.model.encoder import EncoderConfig

GOAL = 0.9
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NETWORKS = {"10 Gb/s, 50 us": Network(1.25e9, 50e-6), "100 Gb/s, 10 us": Network(12.5e9, 10e-6)}


def parts_of(found: Found, turns: slice) -> Parts:
    """The parts of a step by some of the turns: the exchange that shows is what two together take beyond two apart."""
    apart, together = (statistics.median(found.steps[way][turns]) for way in ("apart", "together"))
    shown = max(0.0, together - apart)
    exchange = statistics.median(found.exchange_s[turns])
    return Parts(
        compute_s=statistics.median(found.steps["alone"][turns]),
        input_s=found.input_s,
        gradient_bytes=found.gradient_bytes,
        hidden=max(0.0, 1 - shown / exchange),
    )


def section(full: bool) -> Section:
    """A middling encoder, and BEATs-base with `full`."""
    middling = EncoderConfig(num_layers=6, width=384, ffn_width=1536, num_heads=6)
    jobs = {"6 layers of 384": Job(middling, 8, 6 if full else 2)}  # of the 16 that the default batch gives each
    if full:
        jobs["BEATs-base"] = Job(EncoderConfig(), 4, 4)
    lines, record = [], dict[str, Any]()
    for name, job in jobs.items():
        found = measure(job)
        lines += [f"### {name}, {job.num_clips} clips of {CLIP_SECONDS} s a worker", "", *_measured(job, found)]
        lines += [*_checked(found), *_predicted(job, found)]
        record[name] = found._asdict()
    return Section("Workers", lines, record)


def _measured(job: Job, found: Found) -> list[str]:
    """Steps and throughput of the three ways."""
    alone = found.steps["alone"]
    shares = {way: ratios(alone, found.steps[way]) for way in ("apart", "together")}
    rows = []
    for way, number in zip(WAYS, (1, 2, 2), strict=True):
        clips = number * job.num_clips / statistics.median(found.steps[way])
        share, processor = spread(shares.get(way, [1.0])), spread(found.processor[way])
        rows.append([f"{way}, {number}", spread(found.steps[way]), f"{clips:.2f}", share, processor])
    reached = _share(found.steps, "alone")
    reached_processor = _share(found.processor, "alone")
    return [
        *table(["workers of one thread", "step, s", "clips/s", "share of one's throughput", "processor, s"], rows),
        f"Goal {GOAL}: {'reached' if reached >= GOAL else 'missed'} with {reached:.2f} by the clock; by time of the "
        f"processor, which others on the machine disturb less, {reached_processor:.2f}. Of what this machine gives two "
        f"workers that know nothing of each other, training together keeps {_share(found.steps, 'apart'):.2f} "
        f"({_share(found.processor, 'apart'):.2f}); the rest is the machine's.",
        "",
    ]


def _share(seconds: dict[str, list[float]], way: str) -> float:
    """Of the speed of a way that two together keep."""
    return statistics.median(ratios(seconds[way], seconds["together"]))


def _checked(found: Found) -> list[str]:
    """The prediction of the first half of the turns against the second half."""
    half = len(found.exchange_s) // 2
    parts = parts_of(found, slice(0, half))
    exchange, latency = (statistics.median(values) for values in (found.exchange_s, found.latency_s))
    slowed = statistics.median(found.steps["apart"][:half]) / parts.compute_s
    network = Network(found.gradient_bytes / exchange, latency / 2)  # two workers: 2 messages of half the bytes
    rows = []
    for number, way in ((1, "alone"), (2, "together")):
        crowded = parts._replace(compute_s=parts.compute_s * (slowed if number > 1 else 1.0))
        expected, seen = step_seconds(number, crowded, network), statistics.median(found.steps[way][half:])
        rows.append([str(number), f"{expected:.2f}", f"{seen:.2f}", f"{expected / seen - 1:+.1%}"])
    return [
        f"Measured parts: computing {parts.compute_s:.2f} s; making a batch {parts.input_s:.3f} s, beside the step "
        f"before; {found.gradient_bytes / 1e6:.0f} MB of gradients, which take {exchange:.3f} s between two processes "
        f"here ({network.bytes_per_s / 1e9:.1f} GB/s, {network.latency_s * 1e6:.0f} us a message), {parts.hidden:.0%} "
        f"of it hidden; two workers on this machine compute {slowed:.2f} times as long as one. From the first half of "
        "the turns, against the second half:",
        "",
        *table(["workers", "predicted step, s", "measured, s", "error"], rows),
    ]


def _predicted(job: Job, found: Found) -> list[str]:
    """Throughput of more workers, each with a processor of its own, over networks that are assumed."""
    parts = parts_of(found, slice(None))
    rows = [
        [str(number)]
        + [
            f"{number * job.num_clips / step_seconds(number, parts, network):.1f} "
            f"({efficiency(number, parts, network):.1%})"
            for network in NETWORKS.values()
        ]
        for number in WORKERS
    ]
    return [
        "Predicted, not measured: clips/s and share of linear where every worker has a core of its own as fast as this "
        "one, gradients go around a ring over such a network, the hidden share is the one measured here, and nobody "
        "straggles:",
        "",
        *table(["workers", *NETWORKS], rows),
    ]


if __name__ == "__main__":
    main(section, "workers")
