"""captionkit evaluate and report"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from captionkit.cli.form import given_on, parse, print_metrics
from captionkit.errors import ConfigError
from captionkit.processes import is_main_process
from captionkit.recipe import DataConfig, Decoding


@dataclasses.dataclass
class _Evaluate:
    model: str
    """A folder that captionkit or transformers wrote, or a hub id."""
    metrics: tuple[str, ...] | None = None
    """See `captionkit metrics`; default: those the model was trained with, else wer and rouge."""
    seed: int | None = None
    """Of the split; default: that of the run that trained the model."""
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
    given = parse(_Evaluate, "evaluate", evaluate.__doc__, arguments)
    from captionkit.api import evaluate as run
    from captionkit.api import load

    captioner = load(given.model, given.backend, given.device, None, given.trust_remote_code)
    data = given_on(arguments, given.data)
    name = data.pop("dataset", "")
    folder = Path(given.output_dir or _evaluation_folder(given.model, name, given.data.split))
    result = run(
        captioner, name, metrics=given.metrics, batch_size=given.batch_size, seed=given.seed,
        output_dir=folder,
        **data, **given_on(arguments, given.decoding),
    )  # fmt: skip
    if not is_main_process():
        return
    print(f"images     {len(result.predictions)}")
    print_metrics(result.metrics)
    if result.skipped:
        log = folder / "skipped.jsonl"
        print(f"skipped    {len(result.skipped)} images that cannot be read: {log}")
    print(f"report     {folder / 'report.html'}   (open it in a browser)")


@dataclasses.dataclass
class _Report:
    runs: Annotated[list[str], tyro.conf.Positional]
    """One run's folder, or two to compare."""
    output: str | None = None
    """Where the page of a comparison goes; default: comparison.html in the second run."""


def report(arguments: list[str]) -> None:
    """Write the report of a run anew, or compare two runs."""
    given = parse(_Report, "report", report.__doc__, arguments)
    from captionkit.report import compare_runs, write_report

    folders = [_run_folder(Path(run)) for run in given.runs]
    if len(folders) == 1:
        print(write_report(folders[0], None, folders[0].resolve().parent.name))
    elif len(folders) == 2:
        print(compare_runs(folders, None, Path(given.output) if given.output else None))
    else:
        raise ConfigError(f"Give one run, or two to compare; found {len(folders)}.")


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
