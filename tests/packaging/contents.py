"""What the wheels and the sdist hold: run by `nox -s package` with the folder that they lie in.

`first/` holds the wheel that was built of the source tree, `second/` the one of the sdist.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

NEEDED = (
    "captionkit/py.typed", "captionkit/recipes/quickstart.yaml",
    "captionkit/recipes/models/git-tiny.json", "captionkit/report/templates/report.html.j2",
    "captionkit/report/templates/style.css", "captionkit/report/templates/script.js",
)  # fmt: skip
OF_SOURCES = ("tests/conftest.py", "docs/conf.py", "examples/plugin/pyproject.toml", "noxfile.py",
              "README.md", "LICENSE", "CITATION.cff", "constraints.txt")  # fmt: skip


def main(folder: Path) -> None:
    (first,) = folder.glob("first/*.whl")
    (second,) = folder.glob("second/*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    files = check_wheel(first)
    assert files == check_wheel(second), "the wheel of the sdist differs from that of the tree"
    check_sdist(sdist)
    print(f"{first.name}: {len(files)} files; that of the sdist is equal to it")


def check_wheel(wheel: Path) -> dict[str, str]:
    """The files of a wheel with their digests."""
    with zipfile.ZipFile(wheel) as archive:
        files = {
            name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()
        }
        info = next(name.partition("/")[0] for name in files if ".dist-info/" in name)
        entries = archive.read(f"{info}/entry_points.txt").decode()
    assert not (missing := {*NEEDED, f"{info}/licenses/LICENSE"} - files.keys()), missing
    strange = [name for name in files if not name.startswith(("captionkit/", f"{info}/"))]
    assert not strange, f"beside the package lie {strange}"
    kept = {name for name in files if name.startswith("captionkit/")}
    assert not (tests := [name for name in kept if "test_" in name or "conftest" in name]), tests
    assert not (compiled := [name for name in kept if name.endswith(".pyc")]), compiled
    assert not (lost := tracked() - kept), f"tracked by git, and not in the wheel: {sorted(lost)}"
    for group in ("console_scripts", *(f"captionkit.{k}" for k in ("backends", "datasets"))):
        assert f"[{group}]" in entries, group
    return files


def check_sdist(sdist: Path) -> None:
    """Whoever has the sdist can build, test and document it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not (missing := {*NEEDED, *OF_SOURCES} - names), missing
    left = [n for n in names if n.startswith((".nox/", ".git/")) or "_build/" in n or ".venv" in n]
    assert not left, left


def tracked() -> set[str]:
    """The files of the package that git knows; none outside of a checkout."""
    found = subprocess.run(["git", "ls-files", "captionkit"], capture_output=True, text=True)
    return set(found.stdout.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
