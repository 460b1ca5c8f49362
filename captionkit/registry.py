"""Backends, datasets and metrics, found through entry points: ours and those of others.

Discovery reads the installed metadata once and imports nothing. A plugin is imported when it is
asked for; one that fails to import gives a warning that names its distribution, and the rest works.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

from captionkit.errors import ConfigError, NotInstalledError, PluginError
from captionkit.settings import nearest

if TYPE_CHECKING:
    from captionkit.types import Backend, Metric

Kind = Literal["backends", "datasets", "metrics"]
_SINGULAR = {"backends": "backend", "datasets": "dataset", "metrics": "metric"}

# What we know of and somebody may not have: the name and the command that installs it.
_KNOWN = {
    "backends": {
        "torch": 'pip install "captionkit[torch]"',
        "flax": 'pip install "captionkit[flax]"',
    },
    "datasets": {},
    "metrics": {},
}


@dataclass(frozen=True)
class Listed:
    """A registered name: where it comes from, and "ready" or what is missing."""

    name: str
    distribution: str
    state: str
    summary: str = ""

    @property
    def ready(self) -> bool:
        """Whether it can be used as it is."""
        return self.state == "ready"


def list_backends() -> list[Listed]:
    """The registered backends, each with its state: "ready", or the command that installs it."""
    return _listed("backends", lambda backend: backend().missing())


def list_datasets() -> list[Listed]:
    """The registered dataset sources."""
    return _listed("datasets", lambda source: None)


def list_metrics() -> list[Listed]:
    """The registered metrics; any module of `evaluate` works by its name as well."""
    return _listed("metrics", lambda metric: getattr(metric, "missing", lambda: None)())


def get_backend(name: str) -> Backend:
    """The backend of that name, installed. Raises ConfigError or NotInstalledError."""
    backend = _load("backends", name)()
    if command := backend.missing():
        raise NotInstalledError(
            f"The backend {name!r} is not installed. Install it with: {command}"
        )
    return backend


def backend_for(model_type: str, preferred: str | None = None) -> Backend:
    """The backend that runs a model type: the preferred one if installed, else the first listed.

    Raises ConfigError where none is known to run it, NotInstalledError where none is installed.
    """
    supporting: list[str] = []
    missing: list[str] = []
    for name in names("backends"):
        backend = _try_load("backends", name)
        if backend is not None and model_type in backend.model_types:
            if command := backend().missing():
                missing.append(command)
            else:
                supporting.append(name)
    if supporting:
        return get_backend(preferred if preferred in supporting else supporting[0])
    if missing:
        commands = " or ".join(missing)
        raise NotInstalledError(
            f"No installed backend runs models of type {model_type!r}. Install one with: {commands}"
        )
    known = sorted({t for n in names("backends") for t in _model_types(n)})
    raise ConfigError(
        f"No backend supports models of type {model_type!r}{nearest(model_type, known)} "
        f"Supported: {', '.join(known)}."
    )


def get_dataset(name: str) -> Callable[..., Any]:
    """The loader of a dataset source. Raises ConfigError for an unknown name."""
    return _load("datasets", name)


def get_metric(name: str, **options: Any) -> Metric:
    """A fresh metric: a registered one, or a module of `evaluate` by its name."""
    if name in names("metrics"):
        return _load("metrics", name)(**options)
    from captionkit.metrics.hf import from_evaluate

    return from_evaluate(name, **options)


def check_metrics(metrics: Sequence[str], best: str | None = None) -> bool:
    """Refuse unknown metrics and values; returns whether a higher value of `best` is better."""
    directions = {"loss": False}
    for name in metrics:
        directions |= _directions_of(get_metric(name))
    if best is not None and best not in directions:
        raise ConfigError(
            f"best_metric={best!r} is not a value of the metrics {', '.join(metrics)}"
            f"{nearest(best, directions)} Their values: {', '.join(directions)}."
        )
    return directions[best or "loss"]


def metric_directions() -> dict[str, bool]:
    """Whether a higher value is better, by key, as the registered metrics say of themselves."""
    directions: dict[str, bool] = {}
    for name in names("metrics"):
        metric = _try_load("metrics", name)
        if isinstance(getattr(metric, "keys", None), tuple):  # others know them when they are made
            directions |= _directions_of(metric)
    return directions


def _directions_of(metric: Any) -> dict[str, bool]:
    lower = getattr(metric, "lower_is_better_keys", ())
    return {key: metric.higher_is_better and key not in lower for key in metric.keys}


def option_names(backend: str) -> list[str]:
    """The names of a backend's own settings; for "auto" those of all that are registered."""
    kinds = options_types(backend).values()
    return list(dict.fromkeys(f.name for kind in kinds for f in dataclasses.fields(kind)))


def options_types(backend: str) -> dict[str, type]:
    """By backend name the dataclass of its own settings; for "auto" of all that are registered."""
    if backend != "auto":
        plugins = {backend: _load("backends", backend)}
    else:
        plugins = {name: _try_load("backends", name) for name in names("backends")}
    return {
        name: plugin.options_type
        for name, plugin in plugins.items()
        if plugin is not None and plugin.options_type is not None
    }


def supported_models() -> dict[str, dict[str, frozenset[str]]]:
    """By backend what it says of itself: "model", "encoder" and "decoder" types."""
    supported = {}
    for name in names("backends"):
        parts = getattr(_try_load("backends", name), "parts", {})
        supported[name] = {
            "model": _model_types(name),
            **{role: frozenset(parts.get(role, ())) for role in ("encoder", "decoder")},
        }
    return supported


def names(kind: Kind) -> list[str]:
    """The registered names: torch and flax first, the others by name."""
    first = {"torch": 0, "flax": 1}
    return sorted(_discover(kind), key=lambda name: (first.get(name, 2), name))


def _listed(kind: Kind, missing: Callable[[Any], str | None]) -> list[Listed]:
    rows = []
    for name in names(kind):
        plugin = _try_load(kind, name)
        state = "broken" if plugin is None else (missing(plugin) or "ready")
        summary = (getattr(plugin, "__doc__", None) or "").strip().split("\n")[0]
        rows.append(Listed(name, _distribution(_discover(kind)[name][0]), state, summary))
    return rows


def _model_types(name: str) -> frozenset[str]:
    backend = _try_load("backends", name)
    return backend.model_types if backend else frozenset()


@functools.cache
def _discover(kind: Kind) -> Mapping[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=f"captionkit.{kind}"):
        same = found.setdefault(entry.name, [])
        # an editable install beside an installed one lists the same object twice
        if all((entry.value, _distribution(entry)) != (e.value, _distribution(e)) for e in same):
            same.append(entry)
    return found


@functools.cache
def _load(kind: Kind, name: str) -> Any:
    found = _discover(kind).get(name)
    if not found:
        if name in _KNOWN[kind]:
            command = _KNOWN[kind][name]
            raise NotInstalledError(
                f"The {_SINGULAR[kind]} {name!r} is not installed. Install it with: {command}"
            )
        raise ConfigError(
            f"There is no {_SINGULAR[kind]} {name!r}{nearest(name, names(kind))} "
            f"Registered: {', '.join(names(kind)) or 'none'}."
        )
    if len(found) > 1:
        owners = " and ".join(_distribution(entry) for entry in found)
        raise PluginError(
            f"The {_SINGULAR[kind]} {name!r} is registered by {owners}. Uninstall one of them."
        )
    try:
        return found[0].load()
    except Exception as error:
        raise PluginError(
            f"The {_SINGULAR[kind]} {name!r} of {_distribution(found[0])} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


@functools.cache
def _try_load(kind: Kind, name: str) -> Any:
    # cached, so that a broken plugin warns once
    try:
        return _load(kind, name)
    except PluginError as error:
        warnings.warn(str(error), stacklevel=2)
        return None


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown distribution"
