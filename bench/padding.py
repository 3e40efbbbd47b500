"""How much of a batch is padding, by what clips are padded to: `python bench/padding.py --audio FOLDER`.

From the lengths of a corpus alone. Ours is "the longest clip", the same in every batch; the others are what a collator
that looks at its batch would give. Prints Markdown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from harness import table

from sonar.cli.app import guarded
from sonar.data.corpora import load_corpus

BUCKET_S = 0.5
WINDOW = 512  # clips that are put in order of length together
STEPS = 200


def batches(lengths: np.ndarray, batch_size: int, window: int) -> np.ndarray:
    """(STEPS, batch_size) lengths in seconds, epoch after epoch; inside a window in order of length."""
    draw = np.random.default_rng(0)
    drawn = np.empty(0)
    while len(drawn) < STEPS * batch_size:
        epoch = lengths[draw.permutation(len(lengths))]
        parts = [np.sort(epoch[begin : begin + window]) for begin in range(0, len(epoch), window)]
        drawn = np.concatenate([drawn, *parts])
    return drawn[: STEPS * batch_size].reshape(STEPS, batch_size)


def padding_share(drawn: np.ndarray, padded: np.ndarray | float) -> float:
    """Percent of the samples of batches that are padding, where each batch is padded to `padded` seconds."""
    return 100 * float(1 - drawn.mean(1).sum() / np.broadcast_to(padded, len(drawn)).sum())


def shares(lengths: np.ndarray, clip_seconds: float, batch_size: int) -> list[float]:
    """By the four ways, percent."""
    cropped = np.minimum(lengths, clip_seconds)
    by_chance, by_length = (batches(cropped, batch_size, window) for window in (1, WINDOW))
    return [
        padding_share(by_chance, clip_seconds),
        padding_share(by_chance, _rounded(cropped.max(), clip_seconds)),
        padding_share(by_chance, _rounded(by_chance.max(1), clip_seconds)),
        padding_share(by_length, _rounded(by_length.max(1), clip_seconds)),
    ]


def _rounded(seconds: np.ndarray, clip_seconds: float) -> np.ndarray:
    return np.minimum(np.ceil(seconds / BUCKET_S) * BUCKET_S, clip_seconds)


def bench(
    audio: Annotated[list[Path], typer.Option(help="Folder of a corpus; again for more.")],
    clip_seconds: Annotated[float, typer.Option(help="Longest crop, seconds.")] = 10.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips of a batch.")] = 32,
) -> None:
    """Print the shares of every corpus."""
    header = ["corpus", f"padded to {clip_seconds:g} s", "the longest clip", "the longest of each batch", "by length"]
    rows = []
    for folder in audio:
        lengths = np.asarray([clip.duration_s for clip in load_corpus(folder, domain="any").clips])
        rows.append([folder.name, *(f"{share:.1f} %" for share in shares(lengths, clip_seconds, batch_size))])
    typer.echo("\n".join(table(header, rows)))


if __name__ == "__main__":
    guarded(lambda: typer.run(bench))
