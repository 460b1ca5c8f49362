"""captionkit finetune"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from captionkit.cli.form import parse, peek, print_metrics
from captionkit.processes import is_main_process
from captionkit.recipe import Recipe, shipped_recipes

_RECIPE_HELP = f"A recipe to start from: {', '.join(shipped_recipes())}, or a YAML or JSON file."


def finetune(arguments: list[str]) -> None:
    """Fine-tune a model and write a report."""
    from captionkit import registry

    base = Recipe.of(peek(arguments, "recipe"))
    backend = peek(arguments, "backend") or base.backend
    options = registry.options_types(backend)
    form = dataclasses.make_dataclass(
        "Finetune",
        [
            ("recipe", Annotated[str | None, tyro.conf.arg(help=_RECIPE_HELP)], None),
            ("settings", Recipe, dataclasses.field(default=base)),
            *(
                (f"{name}_options", kind, dataclasses.field(default_factory=kind))
                for name, kind in options.items()
            ),
        ],
    )
    given = parse(form, "finetune", finetune.__doc__, arguments)
    recipe = given.settings
    for name, kind in options.items():
        chosen = dataclasses.asdict(getattr(given, f"{name}_options"))
        changed = {k: v for k, v in chosen.items() if v != getattr(kind(), k)}
        recipe = recipe.replace(backend_options={**recipe.backend_options, **changed})

    from captionkit.api import finetune as run

    result = run(recipe)
    if not is_main_process():
        return
    print(f"\nmodel      {result.output_dir}")
    print_metrics(result.metrics)
    if result.skipped:
        log = result.output_dir / "captionkit" / "skipped.jsonl"
        print(f"skipped    {len(result.skipped)} images that cannot be read: {log}")
    print(f"report     {result.report}   (open it in a browser)")
