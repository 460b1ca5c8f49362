"""Run the tutorials, one after another in one folder, and keep their outputs if asked to.

    python docs/tutorials/execute.py                      # do they run?
    python docs/tutorials/execute.py --save scoring       # run one, and store what it shows

They share a folder because they share a model: the first trains `git-critters`, others go on with
it, so name the first as well, or a folder that has the model (--folder).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
ORDER = ("git-pokemon", "your-photos", "image-generation", "scoring", "vit-gpt2-coco")
SECONDS = 900  # of one cell; training is one
LARGEST = 300_000  # bytes of a notebook in the repository
QUIET = {
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="which; default: all")
    parser.add_argument("--save", action="store_true", help="store the outputs in the notebooks")
    parser.add_argument("--folder", type=Path, help="where they run; default: a temporary folder")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ORDER):
        parser.error(f"no tutorial is called {', '.join(sorted(unknown))}: {', '.join(ORDER)}")
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.names or ORDER:
            execute(HERE / f"{name}.ipynb", folder, given.save)


def execute(path: Path, folder: Path, save: bool) -> None:
    """Run every cell in a fresh kernel; the first that raises ends it all."""
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)
    if save:
        keep(notebook, path, folder)


def keep(notebook: nbformat.NotebookNode, path: Path, folder: Path) -> None:
    """Write the notebook with what a reader wants of it, and nothing of this machine."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if "text" in output:
                output.text = output.text.replace(f"{folder.resolve()}/", "")
    text = nbformat.writes(notebook) + "\n"
    if len(text) > LARGEST:
        raise SystemExit(f"{path.name} would have {len(text):,} bytes, more than {LARGEST:,}.")
    path.write_text(text, encoding="utf-8")


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """The outputs with what was written to one stream in a row as one."""
    result: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = result[-1] if result else {}
        if output.output_type == "stream" and output.name == before.get("name"):
            before["text"] += output.text
        else:
            result.append(output)
    return result


if __name__ == "__main__":
    main()
