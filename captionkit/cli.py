"""The command line. Imported by the console script only; no framework is loaded for `--help`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from captionkit import __version__
from captionkit.errors import CaptionkitError, ConfigError, TrainingInterrupted
from captionkit.processes import is_main_process
from captionkit.recipe import DataConfig, Decoding, Recipe, shipped_recipes
from captionkit.settings import nearest

_FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (an error), 2 (usage), 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"captionkit {__version__}")
        return 0
    name, *rest = arguments
    try:
        if name not in _COMMANDS:
            raise ConfigError(
                f"There is no command {name!r}{nearest(name, _COMMANDS)}\n{_overview()}"
            )
        _COMMANDS[name](rest)
    except TrainingInterrupted as error:
        print(f"\ncaptionkit: {error}", file=sys.stderr)
        return 130
    except CaptionkitError as error:
        print(f"captionkit: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("\ncaptionkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone
        return 0
    return 0


def finetune(arguments: list[str]) -> None:
    """Fine-tune a model and write a report."""
    from captionkit import registry

    base = Recipe.of(_peek(arguments, "recipe"))
    backend = _peek(arguments, "backend") or base.backend
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
    given = _parse(form, "finetune", finetune.__doc__, arguments)
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
    _print_metrics(result.metrics)
    if result.skipped:
        log = result.output_dir / "captionkit" / "skipped.jsonl"
        print(f"skipped    {len(result.skipped)} images that cannot be read: {log}")
    print(f"report     {result.report}   (open it in a browser)")


@dataclasses.dataclass
class _Caption:
    images: Annotated[list[str], tyro.conf.Positional]
    """Image files, folders (searched for images) or URLs."""
    model: str
    """A folder that captionkit or transformers wrote, or a hub id."""
    format: Literal["text", "jsonl", "txt"] = "text"
    """text and jsonl go to standard output; txt writes a .txt beside each image that has none."""
    backend: str = "auto"
    """auto, torch, flax, or a plugin's."""
    device: str | None = None
    """cpu, cuda, mps, ...; default: the best there is."""
    batch_size: int = 16
    """Images captioned at once."""
    on_bad_image: Literal["stop", "skip"] = "skip"
    """An image that cannot be read is named and skipped, or stops the command."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    decoding: Decoding = dataclasses.field(default_factory=Decoding)


def caption(arguments: list[str]) -> None:
    """Caption image files and folders."""
    given = _parse(_Caption, "caption", caption.__doc__, arguments)
    from captionkit.caption_files import caption_files, find_images

    if not given.images:
        raise ConfigError("Which images? Give files, folders or URLs.")
    paths = find_images(given.images)
    from captionkit.api import load

    captioner = load(given.model, given.backend, given.device, None, given.trust_remote_code)
    skipped = 0
    for path, outcome in caption_files(
        captioner, paths, given.batch_size, given.on_bad_image, _given(arguments, given.decoding)
    ):
        if isinstance(outcome, CaptionkitError):
            skipped += 1
            print(f"captionkit: skipped: {outcome}", file=sys.stderr)
        elif given.format == "jsonl":
            row = {"image": str(path), "caption": outcome.text, "score": round(outcome.score, 4)}
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif given.format == "txt":
            target = Path(path).with_suffix(".txt")
            if target.exists():
                print(f"{target}: kept, it has a caption already", file=sys.stderr)
            else:
                target.write_text(outcome.text + "\n", encoding="utf-8")
                print(target, flush=True)
        else:
            print(f"{path}: {outcome.text}", flush=True)
    if skipped:
        print(f"captionkit: {skipped} of {len(paths)} images skipped", file=sys.stderr)


@dataclasses.dataclass
class _Evaluate:
    model: str
    """A folder that captionkit or transformers wrote, or a hub id."""
    metrics: tuple[str, ...] = ("wer", "rouge")
    """See `captionkit metrics`."""
    output_dir: str | None = None
    """Where predictions and the report go; default: MODEL/captionkit/evaluations/..."""
    backend: str = "auto"
    """auto, torch, flax, or a plugin's."""
    device: str | None = None
    """cpu, cuda, mps, ...; default: the best there is."""
    batch_size: int = 32
    """Images captioned at once."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    data: DataConfig = dataclasses.field(default_factory=lambda: DataConfig(split="validation"))
    decoding: Decoding = dataclasses.field(default_factory=Decoding)


def evaluate(arguments: list[str]) -> None:
    """Caption a dataset and score it."""
    given = _parse(_Evaluate, "evaluate", evaluate.__doc__, arguments)
    from captionkit.api import evaluate as run
    from captionkit.api import load

    captioner = load(given.model, given.backend, given.device, None, given.trust_remote_code)
    data = {field.name: getattr(given.data, field.name) for field in dataclasses.fields(DataConfig)}
    name = data.pop("dataset")
    folder = Path(given.output_dir or _evaluation_folder(given.model, name, given.data.split))
    result = run(
        captioner, name, metrics=given.metrics, batch_size=given.batch_size, output_dir=folder,
        **data, **_given(arguments, given.decoding),
    )  # fmt: skip
    print(f"images     {len(result.predictions)}")
    _print_metrics(result.metrics)
    if result.skipped:
        print(f"skipped    {len(result.skipped)} images that cannot be read")
    print(f"report     {folder / 'report.html'}   (open it in a browser)")


@dataclasses.dataclass
class _Report:
    runs: Annotated[list[str], tyro.conf.Positional]
    """One run's folder, or two to compare."""
    output: str | None = None
    """Where the page of a comparison goes; default: comparison.html in the second run."""


def report(arguments: list[str]) -> None:
    """Write the report of a run anew, or compare two runs."""
    given = _parse(_Report, "report", report.__doc__, arguments)
    from captionkit.report import compare_runs, write_report

    folders = [_run_folder(Path(run)) for run in given.runs]
    if len(folders) == 1:
        print(write_report(folders[0], None, folders[0].resolve().parent.name))
    elif len(folders) == 2:
        print(compare_runs(folders, None, Path(given.output) if given.output else None))
    else:
        raise ConfigError(f"Give one run, or two to compare; found {len(folders)}.")


def backends(arguments: list[str]) -> None:
    """Which backends there are, and the commands that install what is missing."""
    from captionkit import registry

    _parse(_Nothing, "backends", backends.__doc__, arguments)
    rows = [(b.name, b.state, registry.summary_of_models(b.name)) for b in registry.list_backends()]
    _table(("backend", "state", "model types"), rows)


def datasets(arguments: list[str]) -> None:
    """The registered dataset sources."""
    from captionkit.registry import list_datasets

    _parse(_Nothing, "datasets", datasets.__doc__, arguments)
    _table(
        ("dataset", "from", "what"), [(d.name, d.distribution, d.summary) for d in list_datasets()]
    )


def metrics(arguments: list[str]) -> None:
    """The registered metrics."""
    from captionkit.registry import list_metrics

    _parse(_Nothing, "metrics", metrics.__doc__, arguments)
    _table(
        ("metric", "from", "what"), [(m.name, m.distribution, m.summary) for m in list_metrics()]
    )


def recipes(arguments: list[str]) -> None:
    """The recipes that ship, as YAML."""
    _parse(_Nothing, "recipes", recipes.__doc__, arguments)
    for name in shipped_recipes():
        print(f"# ---- {name}\n{Recipe.named(name).to_yaml()}")


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    f.__name__: f
    for f in (finetune, caption, evaluate, report, backends, datasets, metrics, recipes)
}
_RECIPE_HELP = f"A recipe to start from: {', '.join(shipped_recipes())}, or a YAML or JSON file."


@dataclasses.dataclass
class _Nothing:
    pass


def _overview() -> str:
    lines = ["captionkit: fine-tune, evaluate and run image-captioning models", "", "commands:"]
    lines += [f"  {name:<10} {command.__doc__}" for name, command in _COMMANDS.items()]
    lines += ["", "captionkit COMMAND --help tells more. Start with:"]
    lines += ["  captionkit finetune --recipe quickstart"]
    return "\n".join(lines)


def _parse(form: Any, command: str, description: str | None, arguments: list[str]) -> Any:
    return tyro.cli(
        form, prog=f"captionkit {command}", description=description, args=arguments, config=_FLAT
    )


def _peek(arguments: list[str], name: str) -> str | None:
    # defaults and options depend on it, so it is read before the rest
    for i, argument in enumerate(arguments):
        if argument == f"--{name}" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None


def _given(arguments: list[str], config: Any) -> dict[str, Any]:
    # what was said on the command line goes before the checkpoint's own, also where it is a default
    flags = {
        a.split("=")[0].removeprefix("--").replace("-", "_") for a in arguments if a[:2] == "--"
    }
    said = flags | {flag.removeprefix("no_") for flag in flags}
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if name in said}


def _print_metrics(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        print(f"{name:<10} {value:.4g}")


def _run_folder(path: Path) -> Path:
    inside = path / "captionkit"
    folder = inside if inside.is_dir() else path
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{path} is not the folder of a run or an evaluation: no run.json in it.")
    return folder


def _evaluation_folder(model: str, dataset: str, split: str) -> Path:
    name = f"{(dataset or 'files').replace('/', '-')}-{split}"
    home = Path(model)
    return (home / "captionkit" if home.is_dir() else Path(".")) / "evaluations" / name


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
