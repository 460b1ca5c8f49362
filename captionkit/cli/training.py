"""captionkit finetune and create"""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Annotated, Any

import tyro

from captionkit.cli.form import field_help, parse, peek, print_metrics, shown
from captionkit.processes import is_main_process
from captionkit.recipe import Recipe, shipped_recipes

_RECIPE_HELP = f"A recipe to start from: {', '.join(shipped_recipes())}, or a YAML or JSON file."


def finetune(arguments: list[str]) -> None:
    """Fine-tune a model and write a report."""
    from captionkit import registry

    base = _base(arguments)
    kinds = registry.options_types(peek(arguments, "backend") or base.backend)
    options = _as_one(list(kinds.values()), base.backend_options)
    form = dataclasses.make_dataclass(
        "Finetune",
        [
            ("recipe", Annotated[str | None, tyro.conf.arg(help=_RECIPE_HELP)], None),
            # the options have flags of their own, and a mixture has none
            (
                "settings",
                Annotated[Recipe, tyro.conf.arg(help="All that a run depends on.")],
                dataclasses.field(default=base.replace(backend_options={}, mix=())),
            ),
            ("options", options, dataclasses.field(default_factory=options)),
        ],
    )
    given = parse(form, "finetune", finetune.__doc__, arguments)
    chosen = dict(base.backend_options)
    for kind in kinds.values():
        for field in dataclasses.fields(kind):
            chosen.pop(field.name, None)
            if (value := getattr(given.options, field.name)) != field.default:
                chosen[field.name] = value

    from captionkit.api import finetune as run

    result = run(given.settings.replace(backend_options=chosen, mix=base.data.mix))
    if not is_main_process():
        return
    print(f"\nmodel      {shown(result.output_dir)}")
    print_metrics(result.metrics)
    if result.skipped:
        log = result.output_dir / "captionkit" / "skipped.jsonl"
        print(f"skipped    {len(result.skipped)} images that cannot be read: {shown(log)}")
    print(f"report     {shown(result.report)}   (open it in a browser)")


@dataclasses.dataclass
class _Create:
    encoder: str
    """Folder or hub id of an image encoder: ViT, DeiT, BEiT, DINOv2, Swin, CLIP or SigLIP."""
    decoder: str
    """Folder or hub id of a text decoder: GPT-2, BERT, RoBERTa, XLM-RoBERTa or CamemBERT."""
    output_dir: Path
    """A new folder for the model, its tokenizer and its image processor."""
    seed: int = 42
    """Of the cross-attention, which neither of them has."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoints."""


def create(arguments: list[str]) -> None:
    """Make one model from an image encoder and a text decoder."""
    given = parse(_Create, "create", create.__doc__, arguments)
    from captionkit import models
    from captionkit.create import create as make

    encoder, decoder = (
        models.resolve_model(part, given.trust_remote_code)
        for part in (given.encoder, given.decoder)
    )
    print(make(encoder, decoder, given.output_dir, given.seed, given.trust_remote_code))


def _base(arguments: list[str]) -> Recipe:
    """The recipe that the flags change: the named one, or that of the run to resume."""
    name = peek(arguments, "recipe")
    output_dir = peek(arguments, "output-dir") or peek(arguments, "output_dir")
    if name is None and output_dir and "--resume" in arguments:
        from captionkit.run_folder import RunFolder

        return RunFolder(Path(output_dir)).stored_recipe()
    return Recipe.of(name)


def _as_one(kinds: list[type], values: dict[str, Any]) -> type:
    """One form of the options of several backends; a name that two have is asked for once."""
    fields: dict[str, Any] = {}
    for kind in kinds:
        texts, hints = field_help(kind), typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            hint: Any = hints[field.name]
            annotation = Annotated[hint, tyro.conf.arg(help=texts.get(field.name))]
            default = values.get(field.name, field.default)
            fields.setdefault(field.name, (annotation, dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Options", [(name, *rest) for name, rest in fields.items()])
