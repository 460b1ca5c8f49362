"""captionkit evaluate and report"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

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
    name, decoding = data.pop("dataset", ""), given_on(arguments, given.decoding)
    others = {**data, **decoding, "seed": given.seed}
    folder = Path(given.output_dir or _evaluation_folder(given, name, others))
    result = run(
        captioner, name, metrics=given.metrics, batch_size=given.batch_size, seed=given.seed,
        output_dir=folder,
        **data, **decoding,
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
        if given.output:
            raise ConfigError("output is for a comparison; the report of a run is written into it.")
        home = folders[0].resolve()
        title = home.parent.name if home.name == "captionkit" else home.name
        print(write_report(home, None, title))
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


def _evaluation_folder(given: _Evaluate, dataset: str, others: dict[str, Any]) -> Path:
    """Of its own for each choice of data and decoding: none is written over another's."""
    place = Path(given.data.data_dir or given.data.train_file or "files").stem
    name = f"{(dataset or place).replace('/', '-')}-{given.data.split}"
    plain = {"split": given.data.split, "seed": None}
    if chosen := {key: value for key, value in others.items() if plain.get(key, ...) != value}:
        text = json.dumps(chosen, sort_keys=True, default=str)
        name += f"-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"
    home = Path(given.model)
    return (home / "captionkit" if home.is_dir() else Path(".")) / "evaluations" / name
