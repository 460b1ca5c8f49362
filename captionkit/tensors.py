"""Reading the tensors of a checkpoint folder without any framework: safetensors, one or sharded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy

from captionkit.errors import CheckpointError

_INDEX = "model.safetensors.index.json"


class TensorFiles(Mapping[str, numpy.ndarray]):
    """The tensors of a folder by name, each read when it is asked for.

    Raises `CheckpointError` for files that are missing, cut off, or not safetensors.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._homes = _files_by_tensor(folder)
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> numpy.ndarray:
        path = self._homes[name]
        if path not in self._open:
            self._open[path] = _open(path)
        return _read(self._open[path], path, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def has_safetensors(folder: Path) -> bool:
    """Whether a folder holds safetensors weights, whole or sharded."""
    return (folder / "model.safetensors").is_file() or (folder / _INDEX).is_file()


def conversion_hint(folder: Path) -> str:
    """What to do about a folder whose weights are in another form, or nowhere."""
    if any(folder.glob("pytorch_model*.bin")):
        return (
            "It has pytorch_model.bin, which only torch can read. Convert it once, where torch is "
            "installed: AutoModel.from_pretrained(folder).save_pretrained(folder) with the class "
            "that its config.json names under architectures; or "
            'captionkit.load(folder, backend="torch").'
        )
    names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return f"It holds: {names}."


def weights_do_not_fit(
    where: object, missing: Iterable[str], unknown: Iterable[str], wrong: Iterable[str] = ()
) -> CheckpointError:
    """The error for tensors that are not those of a model; the first few of each kind are named.

    wrong: names with the shapes that there are and that there should be.
    """
    return CheckpointError(
        f"The weights in {where} do not fit its config.\n"
        f"  missing from the file: {_some(missing)}\n"
        f"  unknown to the model: {_some(unknown)}\n"
        f"  of another shape: {_some(wrong)}\n"
        "Check that config.json belongs to these weights."
    )


def _some(names: Iterable[str]) -> str:
    def by_layer(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    ordered = sorted(names, key=by_layer)
    more = f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
    return (", ".join(ordered[:6]) + more) or "none"


def _files_by_tensor(folder: Path) -> dict[str, Path]:
    whole, index = folder / "model.safetensors", folder / _INDEX
    if whole.is_file():
        return dict.fromkeys(_open(whole).keys(), whole)
    if not index.is_file():
        raise CheckpointError(
            f"{folder} has no model.safetensors, nor {_INDEX}. {conversion_hint(folder)}"
        )
    try:
        homes = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        # old safetensors panic at lone surrogates
        json.dumps(homes, ensure_ascii=False).encode()
        return {str(name): folder / Path(home).name for name, home in homes.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} cannot be read: {error!r:.200}.") from None


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _read(file: Any, path: Path, name: str) -> numpy.ndarray:
    from safetensors import SafetensorError

    try:
        return file.get_tensor(name)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: the tensor {name} cannot be read: {error}") from None
    except (TypeError, AttributeError):  # numpy knows no bfloat16, nor floats of 8 bits
        return _read_bfloat16(path, name)


def _read_bfloat16(path: Path, name: str) -> numpy.ndarray:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        if entry["dtype"] != "BF16":
            raise CheckpointError(f"{path}: {name} has the unsupported type {entry['dtype']}.")
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        bits = numpy.frombuffer(file.read(end - begin), "<u2")
    # bfloat16 is the upper half of a float32
    return (bits.astype("<u4") << 16).view("<f4").reshape(entry["shape"])
