"""The vote of the neighbours against one counted clip by clip."""

import numpy as np
import pytest

from sonar.evaluate.probes.neighbours import neighbour_scores


@pytest.mark.parametrize("temperature", [0.07, 5.0])
def test_the_vote_is_that_counted_by_brute_force(temperature: float) -> None:
    rng = np.random.default_rng(0)
    fitted, features = rng.standard_normal((30, 5)), rng.standard_normal((7, 5))
    targets = rng.random((30, 4)) < 0.4
    found = neighbour_scores(fitted, targets, features, (1, 3, 30, 99), temperature)
    for row, feature in enumerate(features):
        cosine = fitted @ feature / (np.linalg.norm(fitted, axis=1) * np.linalg.norm(feature))
        order = np.argsort(-cosine)
        for candidate, k in enumerate((1, 3, 30, 30)):  # 99 is more than there are
            votes = np.exp(cosine[order[:k]] / temperature)
            expected = (votes[:, None] * targets[order[:k]]).sum(0) / votes.sum()
            assert found[candidate, row] == pytest.approx(expected, abs=1e-9)
