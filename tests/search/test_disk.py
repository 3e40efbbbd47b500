"""What a sweep takes of the disk is known before it begins, and held to."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import make_base, make_config

from sonar.checkpoint import save_checkpoint
from sonar.search.disk import DiskForecast, ModelBytes, check_disk, forecast_disk, model_bytes, show_bytes

SIZE = ModelBytes(encoder=100, checkpoint=250)
RUNNING = 6 * 250 + 250 + 100  # two states of three checkpoints, the end, the latest candidate


def harmonic(number: int) -> Fraction:
    return sum((Fraction(1, rank) for rank in range(1, number + 1)), Fraction(0))


def test_the_size_of_a_checkpoint_is_that_of_its_files(tmp_path: Path) -> None:
    save_checkpoint(make_base(), tmp_path / "base")
    size = model_bytes(tmp_path / "base")
    assert size.checkpoint == sum(file.stat().st_size for file in (tmp_path / "base").iterdir())
    assert 0 < size.encoder < size.checkpoint


@pytest.mark.parametrize(
    ("steps", "every", "points"), [(120, 40, 2), (120, 50, 2), (119, 40, 2), (40, 40, 0), (6, 1, 5)]
)
def test_a_forecast_reaches_from_the_smallest_front_to_everything(steps: int, every: int, points: int) -> None:
    config = make_config(training__model_steps=steps, evaluation__every=every)
    found = forecast_disk(config, SIZE, num_trials=10, num_concurrent=2)
    running = 2 * (RUNNING if points else RUNNING - 100)
    assert found.running == running
    assert found.most == running + 10 * (250 + 100 * points)
    front = harmonic(10 * (1 + points))
    assert found.least == running + 100 * (front.numerator // front.denominator + 1)
    kept = forecast_disk(config, SIZE, num_trials=10, num_concurrent=2, keep_all=True)
    assert kept.least == kept.most == found.most


def test_no_more_run_than_there_are_and_unknown_steps_are_said_to_be_unknown() -> None:
    plain = make_config()
    assert forecast_disk(plain, SIZE, 1, 8).running == RUNNING - 100
    assert forecast_disk(make_config(training__num_workers=2), SIZE, 1, 8).running == RUNNING - 100 + 250
    assert forecast_disk(make_config(training__model_steps=None, evaluation__every=5), SIZE, 1, 1).most is None


def test_features_are_part_of_the_forecast_where_a_tokenizer_is_trained() -> None:
    config = {"training__feature_cache_gb": 0.5}
    assert forecast_disk(make_config(**config), SIZE, 1, 1).features == 500_000_000
    assert forecast_disk(make_config(**config, training__tokenizer_steps=0), SIZE, 1, 1).features == 0


class Usage(NamedTuple):
    free: int


def test_a_sweep_that_cannot_fit_is_refused_and_what_it_holds_already_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("sonar.search.disk.shutil.disk_usage", lambda folder: Usage(1_500))
    forecast = DiskForecast(2_000, 9_000, 1_000)
    with pytest.raises(ValueError, match=r"checkpoints need 2 kB at least, 9 kB at most, and .* has room for 1.5 kB"):
        check_disk(forecast, tmp_path, said.append)
    (tmp_path / "trials" / "t").mkdir(parents=True)
    (tmp_path / "trials" / "t" / "state.pt").write_bytes(bytes(600))
    check_disk(forecast, tmp_path, said.append)
    check_disk(forecast._replace(most=2_100), tmp_path, said.append)
    check_disk(forecast._replace(most=None), tmp_path, said.append)
    assert ["may not fit" in line for line in said] == [True, False, True]
    check_disk(forecast._replace(most=2_100, features=7), tmp_path, said.append)
    assert "2.1 kB at most, kept features up to 7 B more; there is" in said[3] and "may not fit" in said[3]
    assert said[1] == "disk: checkpoints need 2 kB at least, 2.1 kB at most; there is room for 2.1 kB"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_260_000_000, "1.26 GB"), (10**16, "1e+04 TB")]
)
def test_bytes_are_shown_in_three_digits(number: int, text: str) -> None:
    assert show_bytes(number) == text
