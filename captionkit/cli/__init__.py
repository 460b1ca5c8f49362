"""The command line. Imported by the console script only; no framework is loaded for `--help`."""

from __future__ import annotations

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from captionkit import __version__
from captionkit.cli.caption import caption
from captionkit.cli.doctor import doctor
from captionkit.cli.download import download
from captionkit.cli.listing import backends, datasets, metrics, recipes
from captionkit.cli.results import evaluate, report
from captionkit.cli.scoring import compare, score
from captionkit.cli.training import create, finetune
from captionkit.errors import (
    CaptioningInterrupted,
    CaptionkitError,
    ConfigError,
    TrainingInterrupted,
)
from captionkit.interrupt import ended_by_sigterm
from captionkit.lifeline import failed
from captionkit.printable import printable
from captionkit.processes import connected
from captionkit.settings import nearest

_SECONDS_TO_BE_TOLD = 15.0

# most return nothing, which is status 0
_COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    f.__name__: f
    for f in (
        finetune, create, doctor, caption, evaluate, report, score, compare, backends, datasets,
        metrics, recipes, download,
    )
}  # fmt: skip


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
    warnings.showwarning = _show_warning
    status = _run(name, rest)
    if status and connected().count > 1:
        failed(status)
    return status


def _run(name: str, rest: list[str]) -> int:
    try:
        if name not in _COMMANDS:
            raise ConfigError(
                f"There is no command {name!r}{nearest(name, _COMMANDS)}\n{_overview()}"
            )
        with ended_by_sigterm():
            return _COMMANDS[name](rest) or 0
    except (TrainingInterrupted, CaptioningInterrupted) as error:
        print(printable(f"\ncaptionkit: {error}"), file=sys.stderr)
        return 130
    except CaptionkitError as error:
        print(printable(f"captionkit: {error}"), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("\ncaptionkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone
        return 0
    except Exception:
        if connected().count > 1:
            time.sleep(_SECONDS_TO_BE_TOLD)  # does it follow from the end of another process?
            traceback.print_exc()
            return 1
        raise


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    # one line, without the place in our code that the user cannot do anything about
    print(printable(f"captionkit: warning: {message}"), file=sys.stderr)


def _overview() -> str:
    lines = ["captionkit: fine-tune, evaluate and run image-captioning models", "", "commands:"]
    lines += [f"  {name:<10} {command.__doc__}" for name, command in _COMMANDS.items()]
    lines += ["", "captionkit COMMAND --help tells more. Start with:"]
    lines += ["  captionkit finetune --recipe quickstart"]
    return "\n".join(lines)
