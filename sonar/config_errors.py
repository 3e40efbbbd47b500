"""What a user reads when a configuration cannot be used: the error and the parts of its message."""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was given and what is allowed."""


def nearest_key(key: str, valid: Iterable[str]) -> str:
    """How an error message about `key` ends: with the nearest valid key, or all of them if none is near."""
    candidates = sorted(set(valid))
    same_leaf = [other for other in candidates if other.rpartition(".")[2] == key.rpartition(".")[2]]
    near = difflib.get_close_matches(key, same_leaf or candidates, n=1, cutoff=0.0 if same_leaf else 0.6)
    return f"nearest valid key: {near[0]!r}" if near else f"valid keys: {', '.join(candidates)}"


def check_mapping(value: Any, where: str) -> None:
    """Raise ConfigError unless the value is a mapping whose keys are text."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}; allowed: a mapping of keys to values")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: got the key {key!r}; keys are names, written as text")


def wrong_value(value: Any, hint: Any, where: str) -> ConfigError:
    """The error that names the key, the value given and the type `hint` that is allowed."""
    return ConfigError(f"{where}: got {value!r} ({type(value).__name__}); allowed: {describe(hint)}")


def describe(hint: Any) -> str:
    """A type as a user reads it: "float", "'a' or 'b'", "list of int", "int or null"."""
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return " or ".join(repr(allowed) for allowed in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        members = typing.get_args(hint)
        if members[-1] is Ellipsis:
            return f"list of {describe(members[0])}"
        return f"list of ({', '.join(describe(member) for member in members)})"
    return str(getattr(hint, "__name__", hint))
