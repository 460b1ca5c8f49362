"""Running a Java program that the user supplies; nothing of captionkit itself needs Java."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from captionkit.errors import NotInstalledError


def missing(metric: str, variable: str) -> str | None:
    """What a metric that runs a jar lacks on this machine, or None."""
    if shutil.which("java") is None:
        return "a Java runtime on the PATH"
    if not os.environ.get(variable):
        return f"its jar: set {variable}=/path/to/{metric}.jar"
    return None


def find_jar(metric: str, jar: str | os.PathLike[str] | None, variable: str) -> Path:
    """The jar that was given, or that the environment names. Raises `NotInstalledError`."""
    given = jar or os.environ.get(variable)
    if not given:
        raise NotInstalledError(
            f"The metric {metric!r} runs a Java program that does not come with captionkit "
            f"(its licence and size forbid it). Download it and set {variable} to the path of the "
            f"jar, or pass jar=. docs/metrics.md says where it is."
        )
    path = Path(given).expanduser()
    if not path.is_file():
        raise NotInstalledError(f"There is no file {path}, which {metric!r} should run.")
    if shutil.which("java") is None:
        raise NotInstalledError(
            f"The metric {metric!r} needs a Java runtime, and there is no java on the PATH."
        )
    return path.resolve()


def command(jar: Path, memory: str, *arguments: str) -> list[str]:
    """The command line that runs the jar with so much memory, reading and writing UTF-8."""
    return ["java", f"-Xmx{memory}", "-Dfile.encoding=UTF-8", "-jar", str(jar), *arguments]


def complaint(output: str) -> str:
    """What a program that failed says of the cause, for an error message."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:") or "Error:" in line]
    return (causes or lines or ["it said nothing"])[-1]
