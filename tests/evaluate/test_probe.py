"""The probes where the right answer is known: separable classes, noise, and splits that cannot be scored."""

from typing import Any

import numpy as np
import pytest
from blobs import CLASSES, blobs, tagged
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.probes import run
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.data import ProbeData, class_table
from sonar.evaluate.probes.run import run_probe
from sonar.evaluate.scores import TaskScore, decided, score_predictions

CONFIG = ProbeConfig()
EVERY = pytest.mark.parametrize("probe", ["ridge", "logistic", "knn"])


def macro_f1(train: ProbeData, scored: ProbeData, **config: Any) -> TaskScore:
    return score_predictions(run_probe(train, scored, ProbeConfig(**config)), "macro_f1")


@EVERY
def test_classes_that_lie_apart_are_all_found(probe: str) -> None:
    score = macro_f1(blobs(0), blobs(1), probe=probe)
    assert score == (100.0, dict.fromkeys(CLASSES, 100.0))


@EVERY
def test_tags_that_lie_apart_are_all_found(probe: str) -> None:
    found = run_probe(tagged(0), tagged(1), ProbeConfig(probe=probe))
    assert score_predictions(found, "macro_f1").score > 95
    assert score_predictions(found, "map").score > 99


@EVERY
def test_labels_that_have_nothing_to_do_with_the_audio_score_at_chance(probe: str) -> None:
    scores = [
        macro_f1(blobs(seed, 60, distance=0.0), blobs(seed + 50, 400, distance=0.0), probe=probe).score
        for seed in range(2)
    ]
    assert np.mean(scores) == pytest.approx(100 / 3, abs=6)


@EVERY
@pytest.mark.parametrize(("scale", "shift"), [(1e-3, 0.0), (700.0, -100.0)])
def test_scale_and_offset_of_the_embeddings_do_not_matter(probe: str, scale: float, shift: float) -> None:
    train, scored = blobs(0, distance=1.5), blobs(1, distance=1.5)
    moved = [data._replace(embeddings=data.embeddings * scale + shift) for data in (train, scored)]
    plain, other = (decided(run_probe(*pair, ProbeConfig(probe=probe))) for pair in ((train, scored), moved))
    assert (plain != other).any(axis=1).sum() <= 1


def pipeline(penalty: float) -> Pipeline:
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=penalty, class_weight="balanced"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("width", "num_classes"), [(6, 3), (6, 2), (200, 3)])
def test_ridge_is_scikit_learns_pipeline_with_its_penalty_from_cross_validation(
    seed: int, width: int, num_classes: int
) -> None:
    """The same penalty and the same class for every clip, from classes of unequal size."""
    rng = np.random.default_rng(seed)
    train, scored = (blobs(100 * number + seed, distance=1.0, width=width) for number in (1, 2))
    classes = CLASSES[:num_classes]
    keep = np.flatnonzero(rng.random(60) < np.repeat([0.9, 0.6, 0.3], 20))
    train, scored = (
        data.take(rows[data.targets[rows, :num_classes].any(1)])._replace(classes=classes)
        for data, rows in ((train, keep), (scored, np.arange(60)))
    )
    train, scored = (data._replace(targets=data.targets[:, :num_classes]) for data in (train, scored))
    x, y = train.embeddings, train.targets.argmax(1)
    by_f1 = {
        penalty: cross_val_score(pipeline(penalty), x, y, groups=train.groups, cv=GroupKFold(3), scoring="f1_macro")
        for penalty in CONFIG.penalties
    }
    best = max(CONFIG.penalties, key=lambda penalty: by_f1[penalty].mean())
    expected = pipeline(best).fit(x, y)
    found = run_probe(train, scored, CONFIG)
    assert np.array_equal(decided(found).argmax(1), expected.predict(scored.embeddings))
    scores = expected.decision_function(scored.embeddings)
    assert found.scores[:, -1] == pytest.approx(scores if num_classes == 2 else scores[:, -1], abs=1e-6)


@EVERY
def test_the_scored_split_takes_no_part_in_any_choice(probe: str) -> None:
    """What is said of a clip hangs on no other scored clip and on no scored label."""
    train, scored = blobs(0, distance=1.0), blobs(1, distance=1.0)
    rows = np.arange(0, 60, 2)
    some = scored.take(rows)._replace(targets=np.roll(scored.targets[rows], 7, axis=0))
    found, other = (run_probe(train, data, ProbeConfig(probe=probe)) for data in (scored, some))
    np.testing.assert_allclose(found.scores[rows], other.scores, atol=1e-6)


@EVERY
def test_the_candidate_is_the_one_that_dev_likes(probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent truth: each candidate alone, scored on dev; the best one's predictions are what comes out."""
    train, scored, dev = (blobs(seed, distance=1.0) for seed in (0, 1, 2))
    field = {"ridge": "penalties", "logistic": "inverse_penalties", "knn": "neighbours"}[probe]
    candidates = getattr(CONFIG, field)
    alone = [macro_f1(train, dev, probe=probe, **{field: (one,)}).score for one in candidates]
    best = candidates[int(np.argmax(alone))]
    assert max(alone) > min(alone)
    expected = run_probe(train, scored, ProbeConfig(probe=probe, **{field: (best,)}))
    found = run_probe(train, scored, ProbeConfig(probe=probe), dev=dev)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_no_recording_is_on_both_sides_of_a_fold() -> None:
    folds = list(run._folds(blobs(0), 3))
    assert len(folds) == 3
    for fitted, held_out in folds:
        assert not set(fitted.groups) & set(held_out.groups)
    assert sorted(np.concatenate([held.clip_ids for _, held in folds])) == sorted(blobs(0).clip_ids)


def layered(seed: int) -> ProbeData:
    """Three layers, of which only the middle one knows the classes."""
    noise = [blobs(seed + number, distance=0.0).embeddings for number in (100, 200)]
    data = blobs(seed)
    return data._replace(embeddings=np.stack([noise[0], data.embeddings, noise[1]], axis=1))


@pytest.mark.parametrize("dev", [None, layered(7)])
def test_the_best_layer_is_found_and_the_last_one_is_the_last(dev: ProbeData | None) -> None:
    train, scored = layered(0), layered(1)
    scores = {
        layer: score_predictions(run_probe(train, scored, ProbeConfig(layer=layer), dev), "accuracy").score
        for layer in ("last", "mean", "best")
    }
    assert scores["last"] < 60 < scores["mean"] <= scores["best"] == 100.0
    of_last = train._replace(embeddings=train.embeddings[:, -1]), scored._replace(embeddings=scored.embeddings[:, -1])
    last, expected = (
        run_probe(*pair, CONFIG, dev and dev._replace(embeddings=dev.embeddings[:, -1]) if pair is of_last else dev)
        for pair in ((train, scored), of_last)
    )
    np.testing.assert_allclose(last.scores, expected.scores, atol=1e-6)


@EVERY
def test_a_class_of_one_training_clip_changes_no_choice_and_can_be_found(probe: str) -> None:
    train, scored = blobs(0), blobs(1)
    keep = np.flatnonzero(np.r_[np.ones(41, dtype=bool), np.zeros(19, dtype=bool)])  # one wren
    score = macro_f1(train.take(keep), scored, probe=probe, neighbours=(1,))
    assert score.classes["wren"] > 60


@EVERY
def test_a_fold_may_be_left_with_a_single_class(probe: str) -> None:
    """Two recordings, one of each class: whatever is fitted, the other class is unknown."""
    data = [blobs(seed)._replace(classes=CLASSES[:2]) for seed in (0, 1)]
    train, scored = (one.take(np.arange(40))._replace(targets=one.targets[:40, :2]) for one in data)
    train = train._replace(groups=np.repeat(["a", "b"], 20))
    assert macro_f1(train, scored, probe=probe).score == 100.0


@pytest.mark.parametrize("lacking", ["train", "scored", "dev"])
def test_a_class_that_one_split_lacks_is_named(lacking: str) -> None:
    data = {"train": blobs(0), "scored": blobs(1), "dev": blobs(2)}
    keep = np.flatnonzero(~data[lacking].targets[:, 1])
    data[lacking] = data[lacking].take(keep)
    with pytest.raises(ValueError, match="classes owl are not in both the training and the scored and the dev split"):
        run_probe(data["train"], data["scored"], CONFIG, data["dev"])
    if lacking != "dev":
        with pytest.raises(ValueError, match="classes owl are not in both the training and the scored split; give"):
            run_probe(data["train"], data["scored"], CONFIG)


@pytest.mark.parametrize(("role", "bad"), [("training", np.nan), ("scored", np.inf), ("dev", -np.inf)])
def test_embeddings_of_a_diverged_encoder_are_refused(role: str, bad: float) -> None:
    data = {"training": blobs(0), "scored": blobs(1), "dev": blobs(2)}
    data[role].embeddings[3, 2] = bad
    with pytest.raises(ValueError, match=f"embeddings of the {role} split hold NaN or inf; the encoder has diverged"):
        run_probe(data["training"], data["scored"], CONFIG, data["dev"])


def test_a_training_split_of_one_recording_is_refused_unless_dev_chooses() -> None:
    train = blobs(0)._replace(groups=np.full(60, "r"))
    with pytest.raises(ValueError, match="the training split is a single recording; give it clips of two"):
        run_probe(train, blobs(1), CONFIG)
    assert score_predictions(run_probe(train, blobs(1), CONFIG, blobs(2)), "accuracy").score == 100.0


def test_other_classes_in_another_split_are_refused() -> None:
    with pytest.raises(ValueError, match=r"classes of the scored split are \['a', 'b', 'c'\], not \['frog'"):
        run_probe(blobs(0), blobs(1, classes=("a", "b", "c")), CONFIG)


def test_a_task_of_one_class_is_refused() -> None:
    one = [blobs(seed, classes=("frog",), targets=np.ones((60, 1), dtype=bool)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="every clip is frog; a probe needs two classes or more"):
        run_probe(*one, CONFIG)


def test_a_multi_label_task_that_looks_multi_class_where_it_is_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="clips of the training split have no class or several, but every scored"):
        run_probe(tagged(0), blobs(1), CONFIG)


def test_a_tag_that_one_recording_has_gets_no_threshold_without_dev() -> None:
    train = tagged(0)
    train.targets[:, 2] = train.groups == "0-3"
    with pytest.raises(ValueError, match="all training clips of class wren are one recording, so its threshold"):
        run_probe(train, tagged(1), CONFIG)
    assert isinstance(run_probe(train, tagged(1), CONFIG, tagged(2)), Predictions)


def test_a_label_that_is_no_class_is_named() -> None:
    assert class_table([("b",), (), ("a", "b")], ("a", "b")).tolist() == [[False, True], [False, False], [True, True]]
    with pytest.raises(ValueError, match="label 'c' is none of the classes a, b"):
        class_table([("c",)], ("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalties": ()}, r"penalties is \[\]; give one positive candidate or more"),
        ({"neighbours": (0,)}, r"neighbours is \[0\]; give one positive"),
        ({"num_folds": 1}, "num_folds is 1; a candidate is chosen on two folds or more"),
        ({"temperature": 0.0}, "clip_seconds 10.0 and temperature 0.0 must be positive"),
        ({"probe": "attentive", "layer": "best"}, "layer is 'best'; the attentive probe reads the patches of the last"),
    ],
)
def test_a_probe_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**change)
