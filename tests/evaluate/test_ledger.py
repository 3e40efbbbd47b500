"""The record of who looked at which split: it only grows, also with many writers and killed ones."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from sonar.evaluate.ledger import LEDGER_FILE, Use, earlier_tests, now, read_uses, record_use


def use(**values: str) -> Use:
    plain = Use(now(), "c0ffee000000", "packs-birds", "5u17e0000000", "dev", "evaluate")
    return plain._replace(**values)


def test_uses_come_back_in_order(tmp_path: Path) -> None:
    assert read_uses(tmp_path) == []
    uses = [use(checkpoint=f"{number:012x}") for number in range(3)]
    for one in uses:
        record_use(one, tmp_path / "new")
    assert read_uses(tmp_path / "new") == uses


def test_a_line_that_a_killed_process_left_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    record_use(use(purpose="first"), tmp_path)
    path = tmp_path / LEDGER_FILE
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(use()._asdict())[:40])
    assert [one.purpose for one in read_uses(tmp_path)] == ["first"]
    record_use(use(purpose="second"), tmp_path)
    assert [one.purpose for one in read_uses(tmp_path)] == ["first", "second"]


def record_many(folder: Path, writer: int) -> None:
    for number in range(20):
        record_use(use(purpose=f"{writer}/{number}"), folder)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        list(pool.map(record_many, [tmp_path] * 3, range(3)))
    purposes = [one.purpose for one in read_uses(tmp_path)]
    assert sorted(purposes) == sorted(f"{writer}/{number}" for writer in range(3) for number in range(20))


@pytest.mark.parametrize("line", ["nothing", "[]", '{"time": "x"}'])
def test_a_line_that_is_no_use_is_named(line: str, tmp_path: Path) -> None:
    record_use(use(), tmp_path)
    with (tmp_path / LEDGER_FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"evaluations.jsonl, line 2 is not a record of an evaluation"):
        read_uses(tmp_path)


def test_earlier_looks_at_test_are_counted_by_checkpoint_whatever_the_suite_is_called_or_has_become() -> None:
    uses = [
        use(split="test", checkpoint="a"),
        use(split="test", checkpoint="a", suite_hash="changed"),
        use(split="test", checkpoint="b", suite="renamed"),
        use(split="test", checkpoint="b", suite="another", suite_hash="other"),
        use(split="dev", checkpoint="c"),
    ]
    assert earlier_tests(uses, "packs-birds", "5u17e0000000") == {"a": 2, "b": 1}
