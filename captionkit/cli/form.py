"""From command-line arguments to settings, with tyro."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from pathlib import Path
from typing import Any

import tyro

_FLAT = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


def parse(form: Any, command: str, description: str | None, arguments: list[str]) -> Any:
    """The arguments of one command as an instance of a dataclass; exits on usage errors."""
    return tyro.cli(
        form, prog=f"captionkit {command}", description=description, args=arguments, config=_FLAT
    )


def peek(arguments: list[str], name: str) -> str | None:
    """The value of one flag, before the arguments are parsed as a whole."""
    # defaults and options depend on it, so it is read before the rest
    for i, argument in enumerate(arguments):
        if argument == f"--{name}" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None


def field_help(kind: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass."""
    definition: Any = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    body: list[Any] = definition.body
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if type(field).__name__ == "AnnAssign" and type(text).__name__ == "Expr"
    }


def given_on(arguments: list[str], config: Any) -> dict[str, Any]:
    """Those fields of a parsed dataclass that the user named."""
    # what was said on the command line goes before the checkpoint's own, also where it is a default
    flags = {
        a.split("=")[0].removeprefix("--").replace("-", "_") for a in arguments if a[:2] == "--"
    }
    said = flags | {flag.removeprefix("no_") for flag in flags}
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if name in said}


@dataclasses.dataclass
class Nothing:
    """No arguments."""


def print_metrics(metrics: dict[str, float]) -> None:
    """A line a value."""
    for name, value in metrics.items():
        print(f"{name:<10} {value:.4g}")


def shown(path: Path) -> Path:
    """A path as short as it can be said from here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
