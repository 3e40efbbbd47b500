"""The statistics that say whether two precisions train alike."""

import importlib
import math
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("precision")


def test_the_difference_is_welchs_t(bench: ModuleType) -> None:
    fp32, bf16 = [1.0, 1.4, 0.9], [1.5, 1.1, 1.7]
    found = bench.compare(fp32, bf16)
    assert found.errors == pytest.approx(float(stats.ttest_ind(bf16, fp32, equal_var=False).statistic))
    assert (found.fp32, found.bf16) == (pytest.approx(1.1), pytest.approx(4.3 / 3))


def test_equal_runs_do_not_differ_and_runs_without_noise_differ_beyond_it(bench: ModuleType) -> None:
    assert bench.compare([1.0, 2.0], [1.0, 2.0]).errors == 0
    assert bench.compare([1.0, 1.0], [1.0, 1.0]).errors == 0
    assert bench.compare([1.0, 1.0], [1.5, 1.5]).errors == math.inf


def test_windows_cut_a_curve_into_consecutive_means(bench: ModuleType) -> None:
    assert bench.window_means([1.0, 3.0, 5.0, 7.0, 9.0, 11.0], 3) == [2.0, 6.0, 10.0]
    assert len(bench.window_means(range(301))) == bench.WINDOWS


def test_precisions_that_follow_their_seed_are_no_share_of_the_seeds(bench: ModuleType) -> None:
    curves = {"fp32": [{"loss": [2.0] * 9}, {"loss": [3.0] * 9}], "bf16": [{"loss": [2.0] * 9}, {"loss": [3.0] * 9}]}
    assert bench.share_of_seeds(curves, "loss") == 0
    assert [window.errors for window in bench.by_window(curves, "loss")] == [0.0] * bench.WINDOWS
