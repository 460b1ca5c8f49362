"""The facts of a run as rows of readable tables: what ran, on what, with which settings."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, TypeAlias

from captionkit.recipe import Recipe
from captionkit.report.curves import not_finite
from captionkit.report.language import Language
from captionkit.report.run import Run
from captionkit.settings import is_finite

Rows: TypeAlias = list[tuple[str, str]]

_PARTS = {"": "Run", "data": "Data", "training": "Training", "decoding": "Decoding"}
# how a run's own warning says that its captions do not depend on their images
_COLLAPSE = ("captions are the same", "same caption", "no better than they fit other", "collaps")


def run_rows(run: Run) -> Rows:
    """What ran, on what, and how fast; rows that are not known are left out."""
    facts = run.facts
    parameters = _count(facts.get("parameters"))
    if parameters and facts.get("trainable") not in (None, facts.get("parameters")):
        parameters += f", of which {_count(facts.get('trainable'))} trained"
    speed = facts.get("images_per_second")
    rows = [
        ("Command", _text(facts.get("command"))),
        ("Started", date(facts.get("started"))),
        ("Duration", duration(facts.get("seconds"))),
        ("Speed", f"{speed:,.1f} images per second" if is_finite(speed) else ""),
        ("Backend", _text(facts.get("backend"))),
        ("Device", _text(facts.get("device"))),
        ("Parameters", parameters),
        ("Dataset", _text(facts.get("dataset"))),
        ("Training images", _count(facts.get("train_images"))),
        ("Validation images", _count(facts.get("validation_images"))),
        ("Skipped images", _count(facts.get("skipped"))),
        ("Folder", str(run.folder)),
    ]
    return [(name, value) for name, value in rows if value]


def version_rows(run: Run) -> Rows:
    """The libraries and their versions."""
    versions = run.facts.get("versions")
    if not isinstance(versions, dict):
        return []
    return [(str(name), str(version)) for name, version in versions.items()]


def recipe_groups(recipe: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """By part: (setting, value, whether it differs from the default)."""
    settings, defaults = _flat(recipe), _flat(Recipe().to_dict())
    groups: dict[str, list[tuple[str, str, bool]]] = {}
    for (part, name), value in settings.items():
        changed = (part, name) in defaults and defaults[part, name] != value
        title = _PARTS.get(part, part)
        groups.setdefault(title, []).append((name, setting(value), changed))
    return list(groups.items())


def changed_rows(recipe: Mapping[str, Any]) -> Rows:
    """The settings that differ from the defaults."""
    return [
        (n, value) for _, rows in recipe_groups(recipe) for n, value, changed in rows if changed
    ]


def recipe_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(setting, value in a, value in b) where two recipes differ."""
    first, second = _flat(a), _flat(b)
    return [
        (name, setting(first.get((part, name))), setting(second.get((part, name))))
        for part, name in dict.fromkeys([*first, *second])
        if first.get((part, name)) != second.get((part, name))
    ]


def lede(run: Run) -> list[str]:
    """A few short phrases under the title."""
    facts = run.facts
    device, backend = _text(facts.get("device")), _text(facts.get("backend"))
    where = " on ".join(part for part in (backend, device) if part)
    phrases = [
        date(facts.get("started")),
        duration(facts.get("seconds")),
        where,
        f"{_count(facts['parameters'])} parameters" if _count(facts.get("parameters")) else "",
        f"{_count(facts['train_images'])} training images"
        if _count(facts.get("train_images"))
        else "",
        f"{len(run.predictions):,} images captioned" if run.predictions else "",
    ]
    return [phrase for phrase in phrases if phrase]


def warnings_of(run: Run, language: Language | None) -> list[str]:
    """The warnings in run.json, and those of its history and its captions; a collapse once."""
    warnings = run.facts.get("warnings")
    warnings = [warnings] if isinstance(warnings, str) else warnings
    given = [str(warning) for warning in warnings] if isinstance(warnings, list) else []
    own = not_finite(run.history)
    told = any(words in warning.lower() for warning in given for words in _COLLAPSE)
    if language and language.warning and not told:
        own.append(language.warning)
    return given + own


def setting(value: Any) -> str:
    """A recipe's value, in words where YAML has signs."""
    if value is None or value in ([], {}, ""):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def duration(seconds: Any) -> str:
    """3 min 12 s."""
    if not is_finite(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def date(iso: Any) -> str:
    """22 November 2026, 02:51."""
    try:
        when = datetime.datetime.fromisoformat(str(iso))
    except ValueError:
        return _text(iso)
    return f"{when.day} {when:%B %Y, %H:%M}"


def _flat(recipe: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    flat: dict[tuple[str, str], Any] = {}
    for name, value in recipe.items():
        if name in _PARTS and isinstance(value, dict):
            flat |= {(name, str(inner)): item for inner, item in value.items()}
        else:
            flat["", str(name)] = value
    return flat


def _count(value: Any) -> str:
    if not is_finite(value):
        return ""
    if value >= 1e6:
        return f"{value / 1e6:,.1f} M"
    return f"{value:,.0f}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
