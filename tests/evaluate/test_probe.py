"""The probe where the right answer is known: separable classes, noise, and splits that cannot be scored."""

from typing import NamedTuple

import numpy as np
import pytest

from sonar.evaluate import probe
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probe import ProbeConfig, ProbeData
from sonar.evaluate.scores import score_predictions

CONFIG = ProbeConfig()
CLASSES = np.array(["frog", "owl", "wren"])


def blobs(seed: int, per_class: int = 20, distance: float = 8.0, width: int = 6) -> ProbeData:
    """One Gaussian blob per class, `distance` standard deviations from the origin; four clips per recording."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(CLASSES, per_class)
    centres = distance * np.eye(width)[np.repeat(np.arange(3), per_class)]
    groups = np.array([f"{seed}-{row // 4}" for row in range(len(labels))])
    return ProbeData(centres + rng.standard_normal((len(labels), width)), labels, groups)


class Score(NamedTuple):
    macro_f1: float
    accuracy: float
    class_f1: dict[str, float]


def linear_probe(train: ProbeData, scored: ProbeData, config: ProbeConfig) -> Score:
    classes, scores = probe.linear_probe(train, scored, config)
    truth = scored.labels[:, None] == np.asarray(classes)
    said = Predictions(scored.labels, scored.groups, classes, truth, scores)
    f1 = score_predictions(said, "macro_f1")
    return Score(f1.score, score_predictions(said, "accuracy").score, f1.classes)


def test_classes_that_lie_apart_are_all_found() -> None:
    score = linear_probe(blobs(0), blobs(1), CONFIG)
    assert score.macro_f1 == score.accuracy == 100.0
    assert score.class_f1 == dict.fromkeys(CLASSES, 100.0)


def test_labels_that_have_nothing_to_do_with_the_audio_score_at_chance() -> None:
    scores = [
        linear_probe(blobs(seed, 60, distance=0.0), blobs(seed + 50, 400, distance=0.0), CONFIG) for seed in range(2)
    ]
    assert np.mean([score.accuracy for score in scores]) == pytest.approx(100 / 3, abs=6)
    assert np.mean([score.macro_f1 for score in scores]) == pytest.approx(100 / 3, abs=6)


def test_macro_f1_counts_every_class_alike() -> None:
    """All of two classes are right, the third is always taken for the first: F1 of 2/3 (or 1/2), 1 and 0."""
    train = blobs(0)
    scored = blobs(1)
    wren = scored.labels == "wren"
    moved = scored.embeddings.copy()
    moved[wren] = scored.embeddings[scored.labels == "frog"]
    score = linear_probe(train, scored._replace(embeddings=moved), CONFIG)
    assert score.class_f1 == pytest.approx({"frog": 200 / 3, "owl": 100.0, "wren": 0.0})
    assert score.macro_f1 == pytest.approx((200 / 3 + 100) / 3)
    assert score.accuracy == pytest.approx(200 / 3)


@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (700.0, -100.0)])
def test_scale_and_offset_of_the_embeddings_do_not_matter(scale: float, shift: float) -> None:
    train, scored = blobs(0, distance=1.5), blobs(1, distance=1.5)
    plain = linear_probe(train, scored, CONFIG)
    moved = [data._replace(embeddings=data.embeddings * scale + shift) for data in (train, scored)]
    assert linear_probe(*moved, CONFIG).accuracy == pytest.approx(plain.accuracy, abs=2)


def test_the_scored_split_takes_no_part_in_the_choice_of_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, penalties = probe._classifier, []

    def watch(penalty: float) -> object:
        penalties.append(penalty)
        return classifier(penalty)

    monkeypatch.setattr(probe, "_classifier", watch)
    train = blobs(0, distance=1.0)
    chosen = set()
    for seed in range(1, 4):
        scored = blobs(seed, distance=float(seed))
        linear_probe(train, scored._replace(labels=np.roll(scored.labels, 20 * seed)), CONFIG)
        chosen.add(penalties[-1])
    assert len(chosen) == 1 and set(penalties) == set(CONFIG.penalties)


def test_no_recording_is_on_both_sides_of_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    train = blobs(0)
    splits: list[tuple[np.ndarray, np.ndarray]] = []
    score = probe.cross_val_score

    def watch(*arguments: object, groups: np.ndarray, cv: object, **named: object) -> np.ndarray:
        splits.extend(cv.split(train.embeddings, train.labels, groups))  # type: ignore[attr-defined]
        return score(*arguments, groups=groups, cv=cv, **named)

    monkeypatch.setattr(probe, "cross_val_score", watch)
    linear_probe(train, blobs(1), CONFIG)
    assert splits
    for fitted, held_out in splits:
        assert not set(train.groups[fitted]) & set(train.groups[held_out])


@pytest.mark.parametrize("lacking", ["train", "scored"])
def test_a_class_that_one_split_lacks_is_named(lacking: str) -> None:
    data = {"train": blobs(0), "scored": blobs(1)}
    keep = data[lacking].labels != "owl"
    data[lacking] = ProbeData(*(column[keep] for column in data[lacking]))
    with pytest.raises(ValueError, match="classes owl are not in both the training and the scored split"):
        linear_probe(**data, config=CONFIG)


@pytest.mark.parametrize(("role", "bad"), [("training", np.nan), ("scored", np.inf)])
def test_embeddings_of_a_diverged_encoder_are_refused(role: str, bad: float) -> None:
    data = {"training": blobs(0), "scored": blobs(1)}
    data[role].embeddings[3, 2] = bad
    with pytest.raises(ValueError, match=f"embeddings of the {role} split hold NaN or inf; the encoder has diverged"):
        linear_probe(data["training"], data["scored"], CONFIG)
