"""Fine-tuning on tones in noise, and what it must leave alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import changed, make_base, make_store, tensors

from sonar.evaluate import finetune as module
from sonar.evaluate.finetune import Audio, FinetuneConfig, Finetuned, finetune, finetune_task
from sonar.evaluate.run import Labelled, labelled_splits, labelled_tasks
from sonar.evaluate.scores import decided, score_predictions
from sonar.evaluate.spec_augment import spec_augment

QUICK = FinetuneConfig(
    lrs=(1e-3,), head_lr=1e-2, epochs=12, batch_size=8, clip_seconds=0.5, time_mask=0.1, mel_mask=0.1
)
HERTZ = (600.0, 1000.0, 1700.0)


def tones(label: Callable[[int], tuple[str, ...]] = lambda row: ("abc"[row % 3],)) -> dict[str, Audio]:
    """Three tones; 36 clips to train, 18 of dev and of test."""
    store = make_store(
        "tones",
        72,
        seconds=(0.5, 0.4),
        hertz=lambda row: HERTZ[row % 3],
        label=label,
        split=lambda row: ("train", "train", "dev", "test")[row // 3 % 4],
    )
    (task,) = labelled_tasks(store, "target")
    return {name: Audio(store, found) for name, found in labelled_splits(task, ("train", "dev", "test")).items()}


def test_it_learns_what_chance_does_not_and_leaves_the_encoder_alone() -> None:
    base, data = make_base(dropout=0.1), tones()
    before = tensors(base.encoder)
    found = finetune(base.encoder, data["train"], data["test"], QUICK, data["dev"])
    assert score_predictions(found, "macro_f1").score > 80  # chance is 33
    assert changed(before, tensors(base.encoder)) == [] and not base.encoder.training
    assert found.clip_ids.tolist() == data["test"].labelled.clip_ids.tolist()


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    data, encoder = tones(), make_base(dropout=0.1).encoder
    state = torch.random.get_rng_state()
    short = FinetuneConfig(epochs=1, batch_size=8, clip_seconds=0.5)
    scores = [
        finetune(encoder, data["train"], data["test"], config).scores
        for config in (short, short, FinetuneConfig(epochs=1, batch_size=8, clip_seconds=0.5, seed=1))
    ]
    assert np.array_equal(scores[0], scores[1]) and not np.array_equal(scores[0], scores[2])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "change",
    [
        {"lrs": (1e-4,)},
        {"head_lr": 1e-3},
        {"final_fraction": 1.0},
        {"warmup_fraction": 0.5},
        {"weight_decay": 0.5},
        {"betas": (0.5, 0.98)},
        {"clip_norm": 1e-7},
        {"batch_size": 6},
        {"clip_seconds": 0.3},
        {"time_mask": 0.6},
        {"mel_mask": 0.6},
    ],
)
def test_every_option_changes_what_is_learned(change: dict[str, Any]) -> None:
    data, encoder = tones(), make_base().encoder
    train = data["train"]._replace(labelled=_first(data["train"].labelled, 12))
    plain = {"epochs": 1, "batch_size": 4, "clip_seconds": 0.5, "lrs": (1e-3,), "head_lr": 1e-2}
    first, second = (
        finetune(encoder, train, data["test"], FinetuneConfig(**plain | more)).scores for more in ({}, change)
    )
    assert np.abs(first - second).max() > 1e-7


def test_the_epoch_and_the_rate_that_dev_likes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent truth: every epoch's model, scored on dev by hand; what comes out are the first best one's scores."""
    data, encoder = tones(), make_base().encoder
    config = FinetuneConfig(lrs=(1e-6, 1e-3), head_lr=1e-2, epochs=3, batch_size=8, clip_seconds=0.5)
    seen = []
    epochs = module._epochs

    def watch(*arguments: Any) -> Any:
        for model in epochs(*arguments):
            on_dev = module._logits(model, data["dev"], config).argmax(1)
            right = on_dev == data["dev"].labelled.targets.argmax(1)
            f1 = score_predictions(_said(data["dev"], module._logits(model, data["dev"], config)), "macro_f1").score
            seen.append((f1, right.mean(), module._logits(model, data["test"], config)))
            yield model

    monkeypatch.setattr(module, "_epochs", watch)
    found = finetune(encoder, data["train"], data["test"], config, data["dev"])
    best = int(np.argmax([f1 for f1, _, _ in seen]))
    assert len(seen) == 6 and len({f1 for f1, _, _ in seen}) > 1
    assert np.array_equal(found.scores, seen[best][2])


def _first(labelled: Labelled, count: int) -> Labelled:
    rows, targets, classes, groups, clip_ids = labelled
    return Labelled(rows[:count], targets[:count], classes, groups[:count], clip_ids[:count])


def _said(data: Audio, scores: np.ndarray) -> Any:
    split = data.labelled
    return module.Predictions(split.clip_ids, split.groups, split.classes, split.targets, scores)


def test_tags_are_learned_with_thresholds_of_dev() -> None:
    """A clip of the highest tone has two tags, one of the middle none."""
    data = tones(lambda row: (("low",), ("none-of-it",), ("high", "loud"))[row % 3])
    data = {name: _without(audio, "none-of-it") for name, audio in data.items()}
    found = finetune(make_base().encoder, data["train"], data["test"], QUICK, data["dev"])
    assert found.classes == ("high", "loud", "low")
    assert score_predictions(found, "map").score > 80
    assert (decided(found) == found.truth).mean() > 0.8


def _without(audio: Audio, name: str) -> Audio:
    labelled = audio.labelled
    keep = [number for number, known in enumerate(labelled.classes) if known != name]
    classes = tuple(labelled.classes[number] for number in keep)
    return audio._replace(labelled=labelled._replace(targets=labelled.targets[:, keep], classes=classes))


def test_without_dev_the_last_epoch_counts_and_there_is_nothing_to_choose() -> None:
    data = tones()
    found = finetune_task(make_base().encoder, labelled_tasks(data["train"].store, "target")[0], QUICK, "dev")
    assert found.score.score > 60
    two = FinetuneConfig(lrs=(1e-3, 1e-4), clip_seconds=0.5)
    with pytest.raises(ValueError, match="2 learning rates and no dev split to choose on; give one, or a dev split"):
        finetune(make_base().encoder, data["train"], data["test"], two)
    with pytest.raises(ValueError, match="task tones: 2 learning rates and no dev split"):
        finetune_task(make_base().encoder, labelled_tasks(data["train"].store, "target")[0], two, "dev")


def test_without_dev_a_tag_is_said_above_one_half_by_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tones(lambda row: (("low",), ("low", "high"), ("high", "loud"))[row % 3])
    kept, epochs = [], module._epochs

    def watch(*arguments: Any) -> Any:
        for model in epochs(*arguments):
            kept.append(module._logits(model, data["test"], arguments[2]))
            yield model

    monkeypatch.setattr(module, "_epochs", watch)
    short = FinetuneConfig(lrs=(1e-3,), head_lr=1e-2, epochs=3, batch_size=8, clip_seconds=0.5)
    found = finetune(make_base().encoder, data["train"], data["test"], short)
    assert len(kept) == 3 and np.array_equal(found.scores, kept[-1]) and not np.array_equal(kept[-1], kept[-2])
    assert np.array_equal(decided(found), torch.from_numpy(kept[-1]).sigmoid().numpy() > 0.5)


def test_tags_that_training_clips_never_have_together_are_refused() -> None:
    data = tones(
        lambda row: ("low", "high")[: 1 + (row % 3 == 1)] if row // 3 % 4 == 3 else (("low", "high")[row % 2],)
    )
    with pytest.raises(ValueError, match="scored clips have no class or several, but every training clip has one"):
        finetune(make_base().encoder, data["train"], data["test"], QUICK)


def test_a_class_that_a_split_lacks_is_named() -> None:
    data = tones()
    data["dev"].labelled.targets[:, 2] = False
    with pytest.raises(ValueError, match="classes c are not in both the training and the scored and the dev split"):
        finetune(make_base().encoder, data["train"], data["test"], QUICK, data["dev"])


def test_a_gradient_that_is_not_finite_ends_it() -> None:
    data, encoder = tones(), make_base().encoder
    with torch.no_grad():
        encoder.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match=r"fine-tuning has diverged at lr 0\.001, its gradient is nan; lower the lr"):
        finetune(encoder, data["train"], data["test"], QUICK)


def test_logits_are_the_mean_of_the_own_patches() -> None:
    encoder = make_base().encoder
    model = Finetuned(encoder, 2)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    log_mel, padding = torch.randn(2, 48, 128), torch.zeros(2, 24, dtype=torch.bool)
    padding[1, 16:] = True
    with torch.no_grad():
        hidden = encoder(log_mel, padding).last
        expected = torch.stack([model.head(hidden[0]).mean(0), model.head(hidden[1, :16]).mean(0)])
        torch.testing.assert_close(model(log_mel, padding), expected)


def test_the_gradient_of_a_batch_does_not_hang_on_how_its_lengths_split_it() -> None:
    """Clips of 0.4 and of 0.7 s make two passes; together they have the gradient of the mean loss over the clips."""
    store = make_store("mixed", 6, seconds=(0.4, 0.7), label=lambda row: ("ab"[row % 2],))
    (task,) = labelled_tasks(store, "target")
    audio = Audio(store, labelled_splits(task, ("train",))["train"])
    config = FinetuneConfig(clip_seconds=1.0, time_mask=0.0, mel_mask=0.0)

    def gradient(*batches: list[int]) -> torch.Tensor:
        model = Finetuned(make_base().encoder, 2)
        for rows in batches:
            module._add_gradients(model, audio, np.array(rows), config, torch.Generator())
        return model.head.weight.grad

    alone = [gradient([row]) for row in range(6)]
    torch.testing.assert_close(gradient(list(range(6))), torch.stack(alone).mean(0))


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_spec_augment_hides_one_span_of_each_kind_no_wider_than_its_share(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mel = torch.ones(400, 40, 32)
    hidden = spec_augment(mel, share, share, generator) == 0
    frames, bands = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, frames.unsqueeze(2) | bands.unsqueeze(1))
    for spans, length in ((frames, 40), (bands, 32)):
        widths = spans.sum(1)
        assert set(widths.tolist()) == set(range(int(share * length) + 1))
        edges = (spans[:, 1:] != spans[:, :-1]).sum(1)
        assert edges.max() <= 2  # one span
        if share:
            assert spans.float().mean(0).min() > 0  # no place is safe
    assert (mel == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrs": ()}, r"lrs \[\] and head_lr 0\.001 must be positive, one lr or more"),
        ({"head_lr": 0.0}, r"head_lr 0\.0 must be positive"),
        ({"epochs": 0}, "epochs 0, batch_size 32 and clip_seconds 10.0 must be positive"),
        ({"time_mask": 1.0}, "time_mask 1.0, mel_mask 0.3 and warmup_fraction 0.08 must lie in"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(**change)


def test_the_rate_rises_and_falls_to_its_last_share() -> None:
    config = FinetuneConfig(warmup_fraction=0.1, final_fraction=0.25)
    rates = [module._rate(step, 100, config) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == rates[10] == 1.0 and rates[100] == 0.25
    assert rates[10:] == sorted(rates[10:], reverse=True)
