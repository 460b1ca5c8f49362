"""captionkit backends, datasets, metrics and recipes: what there is"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captionkit.cli.form import Nothing, parse
from captionkit.recipe import Recipe, shipped_recipes


def backends(arguments: list[str]) -> None:
    """Which backends there are, what each runs, and what installs the missing ones."""
    from captionkit import registry

    parse(Nothing, "backends", backends.__doc__, arguments)
    _table(("backend", "state"), [(b.name, b.state) for b in registry.list_backends()])
    supported = registry.supported_models()
    print()
    _table(("model type", *supported), _matrix(supported, "model"))
    print("\nof a vision-encoder-decoder, which `captionkit create` makes of two checkpoints:\n")
    for role in ("encoder", "decoder"):
        _table((role, *supported), _matrix(supported, role))
        print()


def datasets(arguments: list[str]) -> None:
    """The registered dataset sources."""
    from captionkit.registry import list_datasets

    parse(Nothing, "datasets", datasets.__doc__, arguments)
    _table(
        ("dataset", "from", "what"), [(d.name, d.distribution, d.summary) for d in list_datasets()]
    )


def metrics(arguments: list[str]) -> None:
    """The registered metrics."""
    from captionkit.registry import list_metrics

    parse(Nothing, "metrics", metrics.__doc__, arguments)
    rows = [(m.name, m.distribution, m.summary, m.state) for m in list_metrics()]
    _table(("metric", "from", "what", "state"), rows)


def recipes(arguments: list[str]) -> None:
    """The recipes that ship, as YAML."""
    parse(Nothing, "recipes", recipes.__doc__, arguments)
    for name in shipped_recipes():
        print(f"# ---- {name}\n{Recipe.named(name).to_yaml()}")


def _matrix(
    supported: Mapping[str, Mapping[str, frozenset[str]]], what: str
) -> list[tuple[str, ...]]:
    """A row a type, with a cell for each backend."""
    types = sorted(set().union(*(kinds[what] for kinds in supported.values())))
    return [
        (kind, *("yes" if kind in kinds[what] else "-" for kinds in supported.values()))
        for kind in types
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
