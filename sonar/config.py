"""Strict dictionaries, YAML and overrides into frozen keyword-only dataclasses, and back.

It knows no particular config: each one lives with its owner. Field types understood: bool, int, float, str,
Path, None, Literal, unions, tuple[T, ...], tuple[A, B] and further dataclasses.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from sonar.config_errors import ConfigError, check_mapping, describe, nearest_key, wrong_value
from sonar.config_text import env_overrides, parse_assignment, read_yaml, unfold

__all__ = [
    "ConfigError",
    "config_hash",
    "dotted_keys",
    "env_overrides",
    "from_dict",
    "nearest_key",
    "override",
    "parse_assignment",
    "read_yaml",
    "to_dict",
]

T = TypeVar("T")


def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Build a config dataclass from plain values, nested dataclasses from nested mappings.

    Args:
        cls: a dataclass; fields without a default must be given.
        mapping: plain values by field name; an int is taken for a float, a bool never for a number.
        where: dotted key of `cls` inside the whole config, for messages.

    Raises:
        ConfigError: unknown, missing or wrongly typed key, or a value that `__post_init__` refuses.
    """
    check_mapping(mapping, where or cls.__name__)
    hints = _field_types(cls)
    for key in mapping:
        if key not in hints:
            raise _unknown_key(cls, key, where)
    values = {key: _convert(value, hints[key], _join(where, key)) for key, value in mapping.items()}
    missing = [field.name for field in _fields(cls) if field.name not in values and _required(field)]
    if missing:
        raise ConfigError(f"{where or cls.__name__}: required and not given: {', '.join(missing)}")
    return _construct(cls, values, where)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain values: nested dicts, tuples as lists, paths as strings; fit for YAML and JSON."""
    return {field.name: _plain(getattr(config, field.name)) for field in _fields(type(config))}


def override(config: T, overrides: Mapping[str, Any], where: str = "") -> T:
    """A copy of `config` with some keys replaced; the rest, and `config` itself, stay as they were.

    Args:
        config: a dataclass instance.
        overrides: values by dotted key; a mapping as value overrides the keys inside it, one by one.
        where: dotted key of `config` inside the whole config, for messages.

    Raises:
        ConfigError: as `from_dict`, or two keys of `overrides` that contradict each other.
    """
    cls = type(config)
    hints = _field_types(cls)
    values: dict[str, Any] = {}
    for key, value in unfold(overrides).items():
        if key not in hints:
            raise _unknown_key(cls, key, where)
        current = getattr(config, key)
        inside = _join(where, key)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            values[key] = override(current, value, inside)
        else:
            values[key] = _convert(value, hints[key], inside)
    kept = {field.name: getattr(config, field.name) for field in _fields(cls)}
    return _construct(cls, {**kept, **values}, where)


def dotted_keys(cls: type) -> dict[str, Any]:
    """Every leaf key of a config dataclass with its type; an optional dataclass counts as its leaves."""
    keys: dict[str, Any] = {}
    for name, hint in _field_types(cls).items():
        nested = _nested_dataclass(hint)
        if nested is None:
            keys[name] = hint
        else:
            keys.update({f"{name}.{key}": leaf for key, leaf in dotted_keys(nested).items()})
    return keys


def config_hash(config: Any, ignore: Sequence[str] = ()) -> str:
    """Name of what a config computes: 12 hex digits of sha256 over its canonical JSON.

    Args:
        config: a dataclass instance (1 and 1.0 in a float field hash alike), or a mapping of plain values.
        ignore: dotted keys, leaves or whole sections, that cannot change a result.

    Raises:
        ConfigError: a key of `ignore` that the config does not have.
    """
    plain = dict(config) if isinstance(config, Mapping) else to_dict(from_dict(type(config), to_dict(config)))
    for key in ignore:
        _remove(plain, key)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _remove(plain: dict[str, Any], key: str) -> None:
    *sections, leaf = key.split(".")
    inside: Any = plain
    for section in sections:
        inside = inside.get(section) if isinstance(inside, dict) else None
    if not isinstance(inside, dict) or leaf not in inside:
        raise ConfigError(f"cannot ignore {key!r}: the config has no such key; it has {', '.join(plain)}")
    del inside[leaf]


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a dataclass; a config is a frozen keyword-only dataclass")
    return [field for field in dataclasses.fields(cls) if field.init]


def _field_types(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in _fields(cls)}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _construct(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _unknown_key(cls: type, key: str, where: str) -> ConfigError:
    valid = [_join(where, name) for name in (*_field_types(cls), *dotted_keys(cls))]
    return ConfigError(f"unknown key {_join(where, key)!r}; {nearest_key(_join(where, key), valid)}")


def _nested_dataclass(hint: Any) -> type | None:
    members = [member for member in _union_members(hint) if dataclasses.is_dataclass(member)]
    return typing.cast(type, members[0]) if len(members) == 1 else None


def _union_members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _convert(value: Any, hint: Any, where: str) -> Any:
    """The value as its field's type wants it.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, where)
    if typing.get_origin(hint) in (Union, types.UnionType):
        return _convert_union(value, hint, where)
    if typing.get_origin(hint) is tuple:
        return _convert_tuple(value, hint, where)
    if typing.get_origin(hint) is Literal:
        return _convert_literal(value, hint, where)
    return _convert_scalar(value, hint, where)


def _convert_union(value: Any, hint: Any, where: str) -> Any:
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if value is None and len(members) < len(typing.get_args(hint)):
        return None
    if len(members) == 1:
        return _convert(value, members[0], where)
    for member in sorted(members, key=lambda member: member is not type(value)):
        try:
            return _convert(value, member, where)
        except ConfigError:
            continue
    raise wrong_value(value, hint, where)


def _convert_tuple(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise wrong_value(value, hint, where)
    members = typing.get_args(hint)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise wrong_value(value, hint, where)
    pairs = enumerate(zip(value, members, strict=True))
    return tuple(_convert(item, member, f"{where}[{index}]") for index, (item, member) in pairs)


def _convert_literal(value: Any, hint: Any, where: str) -> Any:
    for allowed in typing.get_args(hint):
        if type(value) is type(allowed) and value == allowed:
            return allowed
    raise wrong_value(value, hint, where)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float:
        return _convert_float(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint not in (bool, int, str, Path):
        raise TypeError(f"{where}: the type {describe(hint)} is not supported in a config")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise wrong_value(value, hint, where)
    return value


def _convert_float(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_value(value, float, where)
    if not math.isfinite(value):
        raise ConfigError(f"{where}: got {value!r}; allowed: a finite number")
    return float(value)
