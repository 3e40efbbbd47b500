"""Configuration as text: strict YAML files, `key=value` assignments and environment variables."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sonar.config_errors import ConfigError, check_mapping

MAX_YAML_BYTES = 1 << 20
ENV_PREFIX = "SONAR__"


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b=1` into its dotted key and its value, read as YAML 1.2 (`1e-3` a number, `no` text).

    Raises:
        ConfigError: no `=`, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"got {text!r}; write key=value, for example sampling.replay_ratio=0.3")
    return key.strip(), load_yaml(value, where=key.strip())


def env_overrides(environ: Mapping[str, str]) -> dict[str, Any]:
    """Overrides from environment variables: SONAR__SAMPLING__REPLAY_RATIO=0.3 sets sampling.replay_ratio.

    Args:
        environ: usually os.environ; names are matched whatever their case, others than SONAR__* are left out.

    Raises:
        ConfigError: two names that differ in case only, or a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for name, text in sorted(environ.items()):
        if not name.upper().startswith(ENV_PREFIX):
            continue
        key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
        if key in found:
            raise ConfigError(f"environment: {key!r} is set twice, in upper and lower case; unset one")
        found[key] = load_yaml(text, where=name)
    return found


def unfold(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Unfold dotted keys: {"a.b": 1, "a.c.d": 2} becomes {"a": {"b": 1, "c": {"d": 2}}}.

    Raises:
        ConfigError: two keys that contradict each other.
    """
    check_mapping(overrides, "overrides")
    tree: dict[str, Any] = {}
    for dotted, value in overrides.items():
        key, dot, rest = dotted.partition(".")
        addition = {rest: value} if dot else value
        if key not in tree:
            tree[key] = addition
            continue
        known = tree[key]
        both_nested = isinstance(known, Mapping) and isinstance(addition, Mapping)
        if not both_nested or known.keys() & addition.keys():
            raise ConfigError(f"{dotted!r} contradicts another override of {key!r}; give one of them")
        tree[key] = {**known, **addition}
    return {key: unfold(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping of plain values in a YAML 1.2 file of at most 1 MiB; an empty file is an empty one.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: too large, not UTF-8, not YAML, or not a mapping.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_YAML_BYTES + 1)
    if len(data) > MAX_YAML_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_YAML_BYTES} bytes, the most that a config file may have")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error})") from error
    value = load_yaml(text, where=str(path))
    if value is None:
        return {}
    check_mapping(value, str(path))
    return dict(value)


class _StrictLoader(yaml.SafeLoader):
    """Safe loader with YAML 1.2 scalars; PyYAML reads `1e-3` as text, `no` as False and `1:30` as 90."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, with which a few lines can unfold into gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key given twice, of which PyYAML would silently keep the last."""
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise yaml.YAMLError(f"the key {repeated!r} is given twice,{node.start_mark}")
        return mapping


_StrictLoader.yaml_implicit_resolvers = {}
_WITH_POINT = r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?"
_WITH_EXPONENT = r"[-+]?[0-9]+[eE][-+]?[0-9]+"
_NOT_FINITE = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", rf"(?:{_WITH_POINT}|{_WITH_EXPONENT}|{_NOT_FINITE})$", list("-+.0123456789")),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def load_yaml(text: str, where: str) -> Any:
    """The value of one YAML 1.2 document: plain values, lists and mappings.

    Args:
        text: the document.
        where: file or key that it came from, for messages.

    Raises:
        ConfigError: not YAML, or YAML with unsafe tags, aliases, repeated keys or thousands of levels.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be a configuration") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: not a YAML value that can be used: {error}") from error
