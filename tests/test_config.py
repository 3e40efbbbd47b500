"""Strict configs: what is accepted, what is refused, and how the refusal reads."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.config import (
    ConfigError,
    config_hash,
    dotted_keys,
    env_overrides,
    from_dict,
    override,
    parse_assignment,
    read_yaml,
    to_dict,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    replay_ratio: float = 0.3
    num_clusters: int = 8
    retrieval: Literal["knn", "random"] = "knn"

    def __post_init__(self) -> None:
        if not 0 <= self.replay_ratio <= 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; allowed: 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tracking:
    uri: str = "sqlite:///runs/mlflow.db"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    name: str
    sampling: Sampling = Sampling()
    extra: Sampling | None = None
    tracking: Tracking = Tracking()
    widths: tuple[int, ...] = (1, 2)
    crop: tuple[int, float] = (1, 2.0)
    parts: tuple[Sampling, ...] = ()
    seed: int | None = None
    rate: int | float | str = 1
    verbose: bool = False
    folder: Path = Path("runs")


BASE = Config(name="a")


def test_plain_values_and_back_is_the_same_config() -> None:
    config = Config(name="b", extra=Sampling(), parts=(Sampling(num_clusters=3),), seed=4, folder=Path("x/y"))
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Config,
        name=st.text(),
        sampling=st.builds(Sampling, replay_ratio=st.floats(0, 1), num_clusters=st.integers()),
        widths=st.lists(st.integers()).map(tuple),
        seed=st.none() | st.integers(),
        rate=st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        verbose=st.booleans(),
        folder=st.just(Path("runs")),
        crop=st.just((1, 2.0)),
        parts=st.just(()),
        extra=st.none(),
        tracking=st.just(Tracking()),
    )
)
def test_any_config_survives_json(config: Config) -> None:
    again = from_dict(Config, json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert type(again.rate) is type(config.rate)


def test_an_int_is_taken_for_a_float_and_becomes_one() -> None:
    value = from_dict(Sampling, {"replay_ratio": 1}).replay_ratio
    assert value == 1.0
    assert type(value) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay_ration": 0.3}, r"unknown key 'replay_ration'; nearest valid key: 'replay_ratio'"),
        ({"zzz": 1}, r"unknown key 'zzz'; valid keys: num_clusters, replay_ratio, retrieval"),
        ({"replay_ratio": "0.3"}, r"replay_ratio: got '0.3' \(str\); allowed: float"),
        ({"replay_ratio": True}, r"replay_ratio: got True \(bool\); allowed: float"),
        ({"replay_ratio": float("nan")}, r"replay_ratio: got nan; allowed: a finite number"),
        ({"num_clusters": True}, r"num_clusters: got True \(bool\); allowed: int"),
        ({"num_clusters": 2.0}, r"num_clusters: got 2.0 \(float\); allowed: int"),
        ({"retrieval": "kn"}, r"retrieval: got 'kn' \(str\); allowed: 'knn' or 'random'"),
        ({"replay_ratio": 2}, r"Sampling: replay_ratio is 2.0; allowed: 0 to 1"),
        ({3: 1}, r"Sampling: got the key 3"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Sampling, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Config: required and not given: name"),
        ({"name": "a", "sampling": {"num_cluster": 1}}, "nearest valid key: 'sampling.num_clusters'"),
        ({"name": "a", "replay_ratio": 0.1}, r"nearest valid key: '\w+.replay_ratio'"),
        ({"name": "a", "sampling": {"replay_ratio": 7}}, "^sampling: replay_ratio is 7"),
        ({"name": "a", "sampling": 3}, "sampling: got 3; allowed: a mapping"),
        ({"name": "a", "parts": [{}, {"replay_ratio": "x"}]}, r"parts\[1\].replay_ratio: got 'x'"),
        ({"name": "a", "widths": [1, "2"]}, r"widths\[1\]: got '2'"),
        ({"name": "a", "widths": "12"}, "widths: got '12' .*allowed: list of int"),
        ({"name": "a", "crop": [1]}, r"crop: got \[1\] .*allowed: list of \(int, float\)"),
        ({"name": "a", "seed": "x"}, "seed: got 'x'"),
        ({"name": "a", "rate": True}, "rate: got True .*allowed: int or float or str"),
        ({"name": "a", "rate": None}, "rate: got None"),
    ],
)
def test_nested_errors_carry_the_dotted_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Config, values)


def test_an_unsupported_annotation_is_the_programmers_error() -> None:
    strange = dataclasses.make_dataclass("Strange", [("a", set[int])], frozen=True, kw_only=True)
    with pytest.raises(TypeError, match="not supported"):
        from_dict(strange, {"a": {1}})


def test_override_changes_the_named_keys_only_and_leaves_the_original() -> None:
    changed = override(BASE, {"sampling.replay_ratio": 1, "seed": 3})
    assert changed == dataclasses.replace(BASE, sampling=Sampling(replay_ratio=1.0), seed=3)
    assert BASE == Config(name="a")
    assert override(BASE, {}) == BASE


def test_override_by_a_mapping_equals_override_by_dotted_keys() -> None:
    dotted = {"sampling.replay_ratio": 0.5, "sampling.num_clusters": 2}
    assert override(BASE, dotted) == override(BASE, {"sampling": {"replay_ratio": 0.5, "num_clusters": 2}})


def test_an_absent_section_can_be_filled_and_removed() -> None:
    filled = override(BASE, {"extra.num_clusters": 2})
    assert filled.extra == Sampling(num_clusters=2)
    assert override(filled, {"extra": None}) == BASE


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sampling.replay_rato": 1}, "nearest valid key: 'sampling.replay_ratio'"),
        ({"smapling.replay_ratio": 1}, "nearest valid key: 'sampling"),
        ({"sampling.replay_ratio.x": 1}, "sampling.replay_ratio: got"),
        ({"sampling.replay_ratio": 3}, "^sampling: replay_ratio is 3"),
        ({"seed": 1, "seed.x": 2}, "'seed.x' contradicts"),
        ({"sampling": {"num_clusters": 1}, "sampling.num_clusters": 2}, "contradicts"),
    ],
)
def test_a_wrong_override_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(BASE, overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1", 1),
        ("a.b=1e-3", 1e-3),
        ("a.b=-.5", -0.5),
        ("a.b=no", "no"),
        ("a.b=1:30", "1:30"),
        ("a.b=007", "007"),
        ("a.b=2026-11-01", "2026-11-01"),
        ("a.b=true", True),
        ("a.b=null", None),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=x=y", "x=y"),
        ("a.b='1'", "1"),
    ],
)
def test_an_assignment_reads_its_value_as_yaml_1_2(text: str, expected: Any) -> None:
    key, value = parse_assignment(text)
    assert key == "a.b"
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("text", "message"), [("a.b", "write key=value"), ("=1", "key=value"), ("a=[", "^a: ")])
def test_a_malformed_assignment_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_assignment(text)


def test_environment_names_match_whatever_their_case() -> None:
    environ = {"SONAR__SAMPLING__REPLAY_RATIO": "0.5", "sonar__seed": "3", "PATH": "/bin", "SONAR_HOME": "x"}
    assert env_overrides(environ) == {"sampling.replay_ratio": 0.5, "seed": 3}
    assert override(BASE, env_overrides(environ)).sampling.replay_ratio == 0.5


def test_an_environment_key_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'seed' is set twice"):
        env_overrides({"SONAR__SEED": "1", "sonar__seed": "2"})


def test_a_yaml_file_becomes_a_config(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: ä\nsampling:\n  replay_ratio: 1e-1\nextra: ~\nwidths: [3]\n", encoding="utf-8")
    config = from_dict(Config, read_yaml(path))
    assert config == Config(name="ä", sampling=Sampling(replay_ratio=0.1), widths=(3,))
    path.write_text("")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("- 1\n", "allowed: a mapping"),
        ("1: 2\n", "got the key 1"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        ("a: \x00", "not a YAML value"),
    ],
)
def test_a_hostile_yaml_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_a_yaml_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(path)
    with pytest.raises(FileNotFoundError, match=r"b\.yaml"):
        read_yaml(tmp_path / "b.yaml")


def test_dotted_keys_are_exactly_the_keys_that_override_takes() -> None:
    keys = dotted_keys(Config)
    assert keys["sampling.replay_ratio"] is float
    assert keys["extra.num_clusters"] is int
    assert "sampling" not in keys
    for key in keys:
        section, _, leaf = key.rpartition(".")
        value = getattr(getattr(BASE, section) or Sampling(), leaf) if section else getattr(BASE, leaf)
        override(BASE, {key: value})


def test_the_hash_depends_on_values_only() -> None:
    digest = config_hash(BASE)
    assert len(digest) == 12 and set(digest) <= set("0123456789abcdef")
    assert digest == config_hash(from_dict(Config, dict(reversed(to_dict(BASE).items()))))
    assert config_hash(Sampling(replay_ratio=1)) == config_hash(Sampling(replay_ratio=1.0))
    assert config_hash(to_dict(BASE)) == digest
    assert digest != config_hash(override(BASE, {"sampling.replay_ratio": 0.31}))


def test_the_hash_leaves_out_what_cannot_change_a_result() -> None:
    other = override(BASE, {"tracking.uri": "http://x", "seed": 5})
    assert config_hash(BASE) != config_hash(other)
    assert config_hash(BASE, ignore=("tracking", "seed")) == config_hash(other, ignore=("tracking", "seed"))
    with pytest.raises(ConfigError, match="cannot ignore 'trackin'"):
        config_hash(BASE, ignore=("trackin",))
