"""Full fine-tuning: the score of an encoder on a task when all of it may change.

Shapes: B clips, F frames, M mel bins, L patches, D width, N clips in all, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probes.choice import Held, best_thresholds, quality
from sonar.evaluate.probes.data import check_classes
from sonar.evaluate.record import TaskResult
from sonar.evaluate.run import Labelled, Task, labelled_splits, splits_for
from sonar.evaluate.scores import is_multi_label, score_predictions
from sonar.evaluate.spec_augment import spec_augment
from sonar.model.encoder import BeatsEncoder
from sonar.model.heap import freed_memory_kept
from sonar.model.inputs import model_inputs


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How an encoder is fine-tuned. Where no source is named: [inferred].

    Attributes:
        lrs: candidate peak learning rates of the encoder, chosen on dev (3e-5: ESPnet's BEATs on AudioSet-20k).
        head_lr: that of the linear layer, which starts at 0.
        final_fraction: last learning rate as a share of the peak, after a cosine (ESPnet: 5e-6 / 3e-5).
        warmup_fraction: share of the steps with a linear rise (ESPnet: 8000 of 95000).
        weight_decay: of AdamW (ESPnet: 0.01).
        betas: of AdamW (ESPnet: 0.9, 0.98).
        clip_norm: largest gradient norm (ESPnet: 1).
        epochs: passes over the training clips.
        batch_size: clips of a step.
        clip_seconds: clips are cropped around their middle to this length in seconds.
        time_mask: widest time mask of SpecAugment, a share of the frames.
        mel_mask: widest frequency mask, a share of the bands.
        seed: of order, masks and dropout.
    """

    lrs: tuple[float, ...] = (3e-5,)
    head_lr: float = 1e-3
    final_fraction: float = 1 / 6
    warmup_fraction: float = 0.08
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    epochs: int = 30
    batch_size: int = 32
    clip_seconds: float = 10.0
    time_mask: float = 0.2
    mel_mask: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if not self.lrs or min(self.head_lr, *self.lrs) <= 0:
            raise ValueError(f"lrs {list(self.lrs)} and head_lr {self.head_lr} must be positive, one lr or more")
        if self.epochs < 1 or self.batch_size < 1 or self.clip_seconds <= 0:
            raise ValueError(
                f"epochs {self.epochs}, batch_size {self.batch_size} and clip_seconds {self.clip_seconds} must be "
                "positive"
            )
        if not (0 <= self.time_mask < 1 and 0 <= self.mel_mask < 1 and 0 <= self.warmup_fraction < 1):
            raise ValueError(
                f"time_mask {self.time_mask}, mel_mask {self.mel_mask} and warmup_fraction {self.warmup_fraction} must "
                "lie in [0, 1)"
            )


class Audio(NamedTuple):
    """One split of a task: the labelled rows of a store."""

    store: ClipStore
    labelled: Labelled


class Finetuned(nn.Module):
    """An encoder and a linear layer; its logits are the mean over the non-padded patches of each patch's own."""

    def __init__(self, encoder: BeatsEncoder, num_classes: int) -> None:
        """Of a copy of the encoder; the linear layer starts at 0."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        device = next(encoder.parameters()).device
        self.head = nn.utils.skip_init(nn.Linear, encoder.config.width, num_classes, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, log_mel: Tensor, padding: Tensor) -> Tensor:
        """(B, F, M) and (B, L) to (B, C)."""
        own = (~padding).unsqueeze(-1).to(log_mel.dtype)  # (B, L, 1)
        logits = self.head(self.encoder(log_mel, padding).last)  # (B, L, C)
        return (logits * own).sum(1) / own.sum(1)


def finetune_task(encoder: BeatsEncoder, task: Task, config: FinetuneConfig, split: str) -> TaskResult:
    """`finetune` on the training split of a task, scored on `split`; chosen on dev where that is not the scored split.

    Raises:
        ValueError: as `finetune`, or the task has no labelled clip in a split; names the task.
    """
    data = {name: Audio(task.store, found) for name, found in labelled_splits(task, splits_for(split)).items()}
    try:
        predictions = finetune(encoder, data["train"], data[split], config, data["dev"] if split == "test" else None)
        score = score_predictions(predictions, task.metric)
    except ValueError as error:
        raise ValueError(f"task {task.name}: {error}") from error
    return TaskResult(task.name, task.role, task.metric, score, predictions)


@freed_memory_kept()
def finetune(
    encoder: BeatsEncoder, train: Audio, scored: Audio, config: FinetuneConfig, dev: Audio | None = None
) -> Predictions:
    """Fine-tune a copy of an encoder with SpecAugment and let it speak of the scored split.

    Cross-entropy of a multi-class task, binary cross-entropy of a multi-label one. On `dev` the learning rate and the
    epoch are chosen (the first of equal ones), as `run_probe` chooses, and the thresholds of a multi-label task.
    Without it, so where dev is the scored split, the last epoch counts, and a class is said above one half.

    Args:
        encoder: stays as it is; its device is used.
        train: what is fitted.
        scored: takes no part in any choice.
        config: of the fine-tuning.
        dev: what is chosen on.

    Raises:
        ValueError: several learning rates without dev, a class that a split lacks, a multi-label task whose training
            clips look multi-class, or a gradient that is not finite.
    """
    splits = {"training": train, "scored": scored} | ({} if dev is None else {"dev": dev})
    check_classes({name: data.labelled.targets for name, data in splits.items()}, train.labelled.classes)
    if is_multi_label(scored.labelled.targets) and not is_multi_label(train.labelled.targets):
        raise ValueError(
            "scored clips have no class or several, but every training clip has one, so no logit is trained to stand "
            "alone; give the training split clips of several classes, or every clip one class"
        )
    if dev is None and len(config.lrs) > 1:
        raise ValueError(f"{len(config.lrs)} learning rates and no dev split to choose on; give one, or a dev split")
    best = _best_of_dev(encoder, train, dev, config) if dev else _last(encoder, train, config)
    said = scored.labelled
    scores = (_logits(best.model, scored, config) - best.thresholds).astype(np.float32)
    return Predictions(said.clip_ids, said.groups, said.classes, said.targets, scores)


class _Best(NamedTuple):
    """The model that is kept, and the threshold of each class: (C,)."""

    model: Finetuned
    thresholds: np.ndarray


def _last(encoder: BeatsEncoder, train: Audio, config: FinetuneConfig) -> _Best:
    *_, model = _epochs(encoder, train, config, config.lrs[0])
    return _Best(model, np.zeros(len(train.labelled.classes)))


def _best_of_dev(encoder: BeatsEncoder, train: Audio, dev: Audio, config: FinetuneConfig) -> _Best:
    truth, multi_label = dev.labelled.targets, is_multi_label(train.labelled.targets)
    best, highest = None, -math.inf
    for model in (model for lr in config.lrs for model in _epochs(encoder, train, config, lr)):
        held = Held(truth, _logits(model, dev, config), np.ones(truth.shape[1], dtype=np.bool_))
        reached = quality(held, multi_label)
        if reached > highest:
            found = best_thresholds([held], dev.labelled.classes) if multi_label else np.zeros(truth.shape[1])
            best, highest = _Best(copy.deepcopy(model), found), reached
    assert best is not None
    return best


def _epochs(encoder: BeatsEncoder, train: Audio, config: FinetuneConfig, lr: float) -> Iterator[Finetuned]:
    """The model after every epoch, one object that goes on changing."""
    model = Finetuned(encoder, len(train.labelled.classes))
    order, draws = (torch.Generator().manual_seed(config.seed + offset) for offset in (0, 1))
    rates = [{"params": part.parameters(), "lr": r} for part, r in ((model.encoder, lr), (model.head, config.head_lr))]
    optimizer = torch.optim.AdamW(rates, betas=config.betas, weight_decay=config.weight_decay)
    num_clips = len(train.labelled.rows)
    steps = config.epochs * -(-num_clips // config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, config))
    for _ in range(config.epochs):
        for members in torch.randperm(num_clips, generator=order).split(config.batch_size):
            optimizer.zero_grad()
            _add_gradients(model, train, members.numpy(), config, draws)
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            if not torch.isfinite(norm):
                raise ValueError(f"fine-tuning has diverged at lr {lr}, its gradient is {float(norm)}; lower the lr")
            optimizer.step()
            schedule.step()
        yield model


def _add_gradients(
    model: Finetuned, train: Audio, members: np.ndarray, config: FinetuneConfig, draws: torch.Generator
) -> None:
    """Of the mean loss of a batch; its clips go through the model by length, as evaluation batches do.

    `draws` seeds the masks, and dropout through the device's own generator, which is put back.
    """
    model.train()
    rows, targets = train.labelled.rows[members], torch.from_numpy(train.labelled.targets[members])
    device, fbank = model.head.weight.device, model.encoder.config.fbank
    loss_of = _loss_of(is_multi_label(train.labelled.targets))
    for batch, positions in batch_clips(train.store, rows, config.clip_seconds):
        inputs = model_inputs(batch.waveform.to(device), batch.padding.to(device), fbank)
        hidden = spec_augment(inputs.log_mel, config.time_mask, config.mel_mask, draws)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (), generator=draws)))
            loss = loss_of(model(hidden, inputs.padding), targets[positions].to(device))
        (loss * (len(positions) / len(members))).backward()


def _loss_of(multi_label: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean over (B, C) logits and targets."""
    if multi_label:
        return lambda logits, targets: functional.binary_cross_entropy_with_logits(logits, targets.float())
    return lambda logits, targets: functional.cross_entropy(logits, targets.long().argmax(1))


def _rate(step: int, steps: int, config: FinetuneConfig) -> float:
    """Share of the peak learning rate: linear rise, then cosine."""
    warmup = math.ceil(config.warmup_fraction * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return config.final_fraction + 0.5 * (1 - config.final_fraction) * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def _logits(model: Finetuned, data: Audio, config: FinetuneConfig) -> np.ndarray:
    """(N, C) float32 in the order of the split's clips."""
    model.eval()
    device, fbank = model.head.weight.device, model.encoder.config.fbank
    table = np.empty(data.labelled.targets.shape, dtype=np.float32)
    for batch, positions in batch_clips(data.store, data.labelled.rows, config.clip_seconds):
        table[positions] = model(*model_inputs(batch.waveform.to(device), batch.padding.to(device), fbank)).cpu()
    return table
