"""The attentive probe finds what the mean of the patches hides, and never looks at padding."""

import numpy as np
import pytest
import torch
from blobs import CLASSES, blobs

from sonar.evaluate.probes.attentive import AttentivePooling, Candidate, attentive_scores
from sonar.evaluate.probes.config import AttentiveConfig, ProbeConfig
from sonar.evaluate.probes.data import Patches, ProbeData
from sonar.evaluate.probes.run import run_probe
from sonar.evaluate.scores import score_predictions

LENGTH, WIDTH = 12, 16
QUICK = AttentiveConfig(epochs=30, lrs=(1e-1,), weight_decays=(1e-2,))


def needles(seed: int, filler: float = 0.0) -> ProbeData:
    """One loud patch of each clip tells its class; all others are noise that is as loud, of either sign."""
    rng = np.random.default_rng(seed)
    data = blobs(seed, per_class=40)
    numbers = data.targets.argmax(1)
    table = rng.choice([-3.0, 3.0], (len(numbers), LENGTH, 1)) * rng.standard_normal((len(numbers), LENGTH, WIDTH))
    lengths = rng.integers(LENGTH // 2, LENGTH + 1, len(numbers))
    for row, number in enumerate(numbers):
        place = rng.integers(lengths[row])
        table[row, place] = 0.5 * rng.standard_normal(WIDTH)
        table[row, place, [0, 1 + number]] += 12.0
        table[row, lengths[row] :] = filler
    return data._replace(embeddings=Patches(table.astype(np.float16), lengths, np.arange(len(numbers))))


def pooled(data: ProbeData) -> ProbeData:
    values, padding = data.embeddings.read()
    means = [row[~hidden].mean(0) for row, hidden in zip(values, padding, strict=True)]
    return data._replace(embeddings=np.stack(means))


def test_it_finds_the_patch_that_the_mean_hides() -> None:
    train, scored = needles(0), needles(1)
    linear = score_predictions(run_probe(pooled(train), pooled(scored), ProbeConfig()), "macro_f1").score
    found = run_probe(train, scored, ProbeConfig(probe="attentive", attentive=QUICK), dev=needles(2))
    assert score_predictions(found, "macro_f1").score > max(90, linear + 10)


def test_what_lies_in_the_padding_changes_no_bit() -> None:
    scores = [
        attentive_scores(a.embeddings, a.targets, b.embeddings, [Candidate(1e-2, 0.0)], QUICK, seed=0)
        for a, b in ((needles(0), needles(1)), (needles(0, filler=500.0), needles(1, filler=500.0)))
    ]
    assert np.array_equal(*scores)


def test_candidates_side_by_side_are_those_trained_alone_and_a_seed_repeats_itself() -> None:
    a, b = needles(0), needles(1)
    candidates = [Candidate(1e-2, 0.0), Candidate(3e-3, 1.0)]
    together, again = (
        attentive_scores(a.embeddings, a.targets, b.embeddings, candidates, QUICK, seed=3) for _ in range(2)
    )
    assert np.array_equal(together, again)
    for number, candidate in enumerate(candidates):
        alone = attentive_scores(a.embeddings, a.targets, b.embeddings, [candidate], QUICK, seed=3)
        np.testing.assert_allclose(alone[0], together[number], atol=1e-5)
    other = attentive_scores(a.embeddings, a.targets, b.embeddings, candidates, QUICK, seed=4)
    assert np.abs(other - together).max() > 1e-3


def test_queries_of_zero_pool_the_mean() -> None:
    probe = AttentivePooling(WIDTH, 2, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        probe.queries.zero_()
        probe.weight.copy_(torch.eye(3, 2 * WIDTH))
    patches, padding = torch.randn(4, LENGTH, WIDTH), torch.zeros(4, LENGTH, dtype=torch.bool)
    padding[:, 7:] = True
    torch.testing.assert_close(probe(patches, padding), patches[:, :7].mean(1)[:, :3])


def test_tags_are_learned_too() -> None:
    data = [needles(seed) for seed in (0, 1, 2)]
    train, scored, dev = (one._replace(targets=one.targets | np.roll(one.targets, 1, axis=1)) for one in data)
    found = run_probe(train, scored, ProbeConfig(probe="attentive", attentive=QUICK), dev)
    assert score_predictions(found, "map").score > 90 and found.classes == CLASSES


def test_a_rate_that_diverges_is_named() -> None:
    a, b = needles(0), needles(1)
    with pytest.raises(ValueError, match=r"the attentive probe has diverged at lr 1e\+30; leave it out of"):
        attentive_scores(a.embeddings, a.targets, b.embeddings, [Candidate(1e30, 0.0)], QUICK, seed=0)


def test_patches_and_means_are_not_taken_for_each_other() -> None:
    with pytest.raises(ValueError, match=r"the attentive probe reads patches; give FeatureCache\.patches"):
        run_probe(blobs(0), blobs(1), ProbeConfig(probe="attentive"))
    with pytest.raises(ValueError, match="these embeddings are patches, which only the attentive probe reads"):
        run_probe(needles(0), needles(1), ProbeConfig())


def test_patches_that_are_not_finite_are_refused() -> None:
    scored = needles(1)
    scored.embeddings.table[5, 0, 0] = np.inf
    with pytest.raises(ValueError, match="embeddings of the scored split hold NaN or inf"):
        run_probe(needles(0), scored, ProbeConfig(probe="attentive"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"attentive\.epochs is 0; it must be positive"),
        ({"lrs": ()}, r"attentive\.lrs \[\] must be positive and weight_decays"),
        ({"weight_decays": (-1.0,)}, r"weight_decays \[-1.0\] not negative"),
    ],
)
def test_a_probe_that_cannot_be_trained_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentiveConfig(**change)


@pytest.mark.parametrize(
    "change",
    [{"num_queries": 1}, {"lrs": (1e-2,)}, {"weight_decays": (5.0,)}, {"epochs": 29}, {"batch_size": 16}],
)
def test_every_option_changes_what_is_learned(change: dict[str, object]) -> None:
    plain = {"epochs": 30, "lrs": (1e-1,), "weight_decays": (1e-2,)}
    configs = [ProbeConfig(probe="attentive", attentive=AttentiveConfig(**plain | more)) for more in ({}, change)]
    first, second = (run_probe(needles(0), needles(1), config, needles(2)).scores for config in configs)
    assert np.abs(first - second).max() > 1e-4
