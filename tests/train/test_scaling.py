"""The throughput that bench/workers.py predicts follows from closed forms where there are any."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

bench = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "bench" / "scaling.py")))
PARTS = bench.Parts(compute_s=2.0, input_s=0.1, gradient_bytes=360e6, hidden=0.0)
NETWORK = bench.Network(bytes_per_s=1.25e9, latency_s=1e-4)
NUMBERS = (1, 2, 3, 16, 1024)


def test_one_worker_exchanges_nothing() -> None:
    nothing = bench.Network(bytes_per_s=1.0, latency_s=1e3)
    assert bench.step_seconds(1, PARTS, nothing) == PARTS.compute_s and bench.efficiency(1, PARTS, nothing) == 1.0


@pytest.mark.parametrize("workers", NUMBERS)
def test_throughput_is_linear_where_the_network_takes_no_time_or_all_of_it_is_hidden(workers: int) -> None:
    assert bench.efficiency(workers, PARTS, bench.Network(math.inf, 0.0)) == 1.0
    hidden = bench.efficiency(workers, PARTS._replace(hidden=1.0), NETWORK._replace(latency_s=0.0))
    assert hidden == pytest.approx(1.0)


@pytest.mark.parametrize("workers", NUMBERS)
def test_a_ring_sends_every_byte_but_the_own_share_twice(workers: int) -> None:
    seconds = bench.exchange_seconds(workers, 8.0, bench.Network(2.0, 0.0))
    assert seconds == pytest.approx(2 * (workers - 1) / workers * 8.0 / 2.0)
    assert bench.exchange_seconds(workers, 0.0, bench.Network(1.0, 0.5), 3) == 2 * (workers - 1) * 0.5 * 3


def test_no_more_of_the_exchange_is_hidden_than_the_backward_pass_lasts() -> None:
    slow = bench.Network(bytes_per_s=36e6, latency_s=0.0)  # 10 s for two workers
    found = bench.step_seconds(2, PARTS._replace(hidden=1.0), slow)
    assert found == pytest.approx(2.0 + 10.0 - bench.BACKWARD * 2.0)


def test_a_step_lasts_as_long_as_its_input() -> None:
    assert bench.step_seconds(4, PARTS._replace(input_s=99.0), NETWORK) == 99.0


def test_efficiency_falls_with_the_number_of_workers_and_rises_with_the_network() -> None:
    falling = [bench.efficiency(workers, PARTS, NETWORK) for workers in NUMBERS]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == len(NUMBERS)
    for workers, here in zip(NUMBERS[1:], falling[1:], strict=True):
        assert bench.efficiency(workers, PARTS, NETWORK._replace(bytes_per_s=1e10)) > here
