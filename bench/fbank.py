"""The front end against torchaudio: Kaldi's log-mel one clip at a time, as BEATs computes it.

    python bench/fbank.py runs/bench [--full]

Beside it stands torchaudio's MelSpectrogram with a logarithm, on the whole batch: another feature (no pre-emphasis, no
DC removal, another window), so only a mark of what a batched spectrogram costs.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from harness import Section, main, ratios, spread, table, take_turns, threads
from torch import Tensor

from sonar.model.fbank import (
    ENERGY_FLOOR,
    FFT_SAMPLES,
    FRAME_SAMPLES,
    HIGH_HZ,
    HOP_SAMPLES,
    LOW_HZ,
    SAMPLE_RATE,
    WAVE_SCALE,
    FbankConfig,
    log_mel,
)

BATCH = 16
CONFIG = FbankConfig()
GOAL, AIM = 2.5, 4.0  # times torchaudio's speed
OURS, KALDI, SPECTROGRAM = "ours", "torchaudio kaldi.fbank", "torchaudio MelSpectrogram + log (not equal)"
FrontEnd = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    """Where and on what it is measured."""

    device: str
    num_threads: int
    clip_s: float

    def __str__(self) -> str:
        """As a heading of a row."""
        where = "GPU" if self.device == "cuda" else f"{self.num_threads} thread{'s' * (self.num_threads > 1)}"
        return f"{self.clip_s:g} s, {where}"


def section(full: bool) -> Section:
    """Clips of 10 s and 5 s at 1 and 2 threads, and on a GPU where there is one."""
    cases = [Case("cpu", count, clip_s) for clip_s in (10.0, 5.0) for count in (1, 2)]
    if torch.cuda.is_available():
        cases += [Case("cuda", 1, 10.0)]
    found = [_measure(case, rounds=31 if full else 9) for case in cases]
    rows = [
        [str(case), *(spread(one["clips_per_second"][name]) for name in one["clips_per_second"]), _times(one)]
        for case, one in zip(cases, found, strict=True)
    ]
    lines = [
        f"Batches of {BATCH}, 128 bins, clips/s; times: {KALDI} / ours, round by round.",
        "",
        *table(["clips", OURS, KALDI, SPECTROGRAM, "times", "largest difference"], rows),
        _verdict(cases, found),
    ]
    return Section("Front end", lines, {"cases": found})


def _measure(case: Case, rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(BATCH, int(case.clip_s * SAMPLE_RATE), generator=generator).mul_(0.1).to(case.device)
    front_ends: dict[str, FrontEnd] = {
        OURS: lambda clips: log_mel(clips, CONFIG),
        KALDI: kaldi_fbank,
        SPECTROGRAM: _spectrogram(case.device),
    }
    with threads(case.num_threads):
        ways = {name: (lambda front_end=front_end: front_end(waveform)) for name, front_end in front_ends.items()}
        seconds = take_turns(ways, rounds, warmups=2)
        difference = (log_mel(waveform, CONFIG) - kaldi_fbank(waveform)).abs().max().item()
    return {
        **case._asdict(),
        "seconds": seconds,
        "clips_per_second": {name: [BATCH / one for one in taken] for name, taken in seconds.items()},
        "times": ratios(seconds[KALDI], seconds[OURS]),
        "largest_difference": difference,
    }


def kaldi_fbank(waveform: Tensor) -> Tensor:
    """What BEATs does: (B, T) to (B, F, M), one clip after the other."""
    fbank = _torchaudio().compliance.kaldi.fbank
    clips = [
        fbank(clip.unsqueeze(0) * WAVE_SCALE, num_mel_bins=CONFIG.num_mel_bins, sample_frequency=SAMPLE_RATE)
        for clip in waveform
    ]
    return (torch.stack(clips) - CONFIG.mean) / (2 * CONFIG.std)


def _spectrogram(device: str) -> FrontEnd:
    transform = (
        _torchaudio()
        .transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE,
            n_fft=FFT_SAMPLES,
            win_length=FRAME_SAMPLES,
            hop_length=HOP_SAMPLES,
            f_min=LOW_HZ,
            f_max=HIGH_HZ,
            n_mels=CONFIG.num_mel_bins,
            center=False,
        )
        .to(device)
    )
    scale, offset = 1 / (2 * CONFIG.std), CONFIG.mean
    return lambda clips: ((transform(clips * WAVE_SCALE).clamp_(min=ENERGY_FLOOR).log_() - offset) * scale).mT


def _torchaudio() -> Any:
    """The package; where its extension was built for another torch, without it: what is measured is plain Python."""
    try:
        import torchaudio
    except OSError:
        extension = ModuleType("torchaudio._extension")
        extension.__dict__.update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda function: function)
        sys.modules[extension.__name__] = extension
        import torchaudio
    return torchaudio


def _times(one: dict[str, Any]) -> str:
    return f"{spread(one['times'], '.2f')} | {one['largest_difference']:.0e}"


def _verdict(cases: list[Case], found: list[dict[str, Any]]) -> str:
    """Where the goal and the aim are met, from the CPU's clips of 10 s."""
    said = []
    for case, one in zip(cases, found, strict=True):
        if case.device == "cpu" and case.clip_s == 10.0:
            times = statistics.median(one["times"])
            goal, aim = ("met" if times >= least else "missed" for least in (GOAL, AIM))
            said.append(f"{case}: {times:.2f}, goal of {GOAL} {goal}, aim of {AIM:g} {aim}")
    return f"{'; '.join(said)}. Log-mel differs from Kaldi's by rounding alone."


if __name__ == "__main__":
    main(section, "fbank")
