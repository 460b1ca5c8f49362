"""Checking settings against the annotations of their dataclass, with errors that help.

Used for recipes and for the options of backends alike.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from captionkit.errors import ConfigError


def require(config: object, name: str, condition: bool, expected: str) -> None:
    """Raise ConfigError where a condition on one field does not hold."""
    if not condition:
        raise ConfigError(
            f"{name}={_shown(getattr(config, name))} is not possible: it must be {expected}."
        )


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, OverflowError):  # no number, or an integer of hundreds of digits
        return False


def check_types(config: Any) -> None:
    """Check every field against its annotation; turn what files spell differently into its type."""
    hints = _hints(config.__class__)
    for f in dataclasses.fields(config):
        value = _coerce(getattr(config, f.name), hints[f.name])
        if value is _WRONG:
            raise ConfigError(
                f"{f.name}={_shown(getattr(config, f.name))} is not possible: "
                f"it must be {_spell(hints[f.name])}."
            )
        object.__setattr__(config, f.name, value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


_WRONG = object()


def _coerce(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value if value in arguments else _WRONG
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        results = (_coerce(value, a) for a in arguments if a is not type(None))
        return next((r for r in results if r is not _WRONG), _WRONG)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return _WRONG
        items = tuple(_coerce(item, arguments[0]) for item in value)
        return _WRONG if _WRONG in items else items
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) and _is_plain(value) else _WRONG
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else _WRONG
    if hint is float:
        # YAML 1.1 reads 5e-5 as a string
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return _WRONG
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return _WRONG
        return number if math.isfinite(number) else _WRONG
    if hint is int and isinstance(value, bool):
        return _WRONG
    if hint is str and isinstance(value, Path):
        return str(value)
    return value if isinstance(value, hint) else _WRONG


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether YAML and JSON can hold a value, and give it back equal."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) for key in value)
        return named and all(_is_plain(item, depth + 1) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item, depth + 1) for item in value)
    if isinstance(value, int):
        return abs(value) < 2**64
    return value is None or isinstance(value, (str, float))


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.200}"
    except ValueError:  # Python spells out no number of thousands of digits
        return "a number of thousands of digits"


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(str(a) for a in typing.get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(
            "nothing" if a is type(None) else _spell(a) for a in typing.get_args(hint)
        )
    if typing.get_origin(hint) is tuple:
        return "a list of " + ("text" if typing.get_args(hint)[0] is str else "settings")
    if typing.get_origin(hint) is dict:
        return "settings by name, plain ones"
    return names.get(hint, str(getattr(hint, "__name__", hint)))


def unknown_setting(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a setting that does not exist, with the nearest that does."""
    return ConfigError(f"There is no setting {name!r:.80}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean ...?", or a full stop."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."


def read_settings_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, read safely. Raises ConfigError."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(f"{path} is larger than {_LARGEST_FILE:,} bytes: it is no recipe.")
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except OSError as error:
        raise ConfigError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} should hold settings by name, found {type(values).__name__}.")
    return values


def parse_yaml(text: str) -> Any:
    """What a YAML document holds: plain values only, within bounds. Raises ValueError.

    Nothing in it is run. Aliases may stand for the same value again and again, each time for all
    that is below it: with those written out it may have `_LARGEST_YAML` values.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        _check_size(root)
        return loader.construct_document(root) if root is not None else None
    except Exception as error:  # its constructors raise anything for what is badly written
        reason = f"{error}" if isinstance(error, (yaml.YAMLError, ValueError)) else repr(error)
        raise ValueError(reason) from None


def _check_size(root: Any) -> None:
    left, count = [root], 0
    while left:  # an alias that leads to where it stands ends here as well
        node = left.pop()
        count += 1
        if count > _LARGEST_YAML:
            raise ValueError(f"it stands for more than {_LARGEST_YAML:,} values")
        inside = getattr(node, "value", None)
        if isinstance(inside, list):
            left += [part for item in inside for part in (item if type(item) is tuple else (item,))]


_LARGEST_FILE = 2**20  # bytes
_LARGEST_YAML = 100_000
_DEEPEST = 20  # settings inside settings


def plain(value: Any) -> Any:
    """Nested mappings and lists, for YAML and JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
