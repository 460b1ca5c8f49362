"""Weights that others wrote: safetensors, whole and sharded, and Flax's msgpack."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from fuzz.harness import fuzz
from fuzz.mutations import NUMBERS, Dice, any_file, documents, dumped
from safetensors.numpy import save

from captionkit.tensors import TensorFiles

PLAIN = {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64),
         "c": np.zeros((), np.float16)}  # fmt: skip
WHOLE = save(PLAIN, {"format": "pt"})
HEADER = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    "c": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [22, 24]},
    "__metadata__": {"format": "pt"},
}
VALUES = [
    "F64",
    "BF16",
    "BOOL",
    "F8_E5M2",
    "F4",
    [2, 3],
    [0],
    [2**40, 2**40],
    [0, 2**63],
    [1, 1, 4],
]


def with_header(document: object) -> bytes:
    header = dumped(document)
    return struct.pack("<Q", len(header)) + header + bytes(24)


def with_length(dice: Dice) -> bytes:
    content = bytearray(with_header(HEADER))
    content[:8] = struct.pack("<Q", dice.pick(NUMBERS) % 2**64)
    return bytes(content)


HEADERS = documents([HEADER, {"b": HEADER["b"] | {"data_offsets": [0, 6]}}], with_header, VALUES)


def test_safetensors(tmp_path):
    file = tmp_path / "model.safetensors"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for tensor in TensorFiles(tmp_path).values():
            assert isinstance(tensor, np.ndarray)

    seeds = [WHOLE, with_header({"b": {"dtype": "BF16", "shape": [12], "data_offsets": [0, 24]}})]
    make = any_file(seeds, (), lambda dice: HEADERS(dice) if dice.roll(6) else with_length(dice))
    fuzz("safetensors", make, read)


def test_index(tmp_path):
    (tmp_path / "one.safetensors").write_bytes(WHOLE)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {name: "one.safetensors" for name in PLAIN},
    }

    def read(content: bytes) -> None:
        (tmp_path / "model.safetensors.index.json").write_bytes(content)
        for tensor in TensorFiles(tmp_path).values():
            assert isinstance(tensor, np.ndarray)

    values = ["one.safetensors", "../one.safetensors", "none.safetensors"]
    fuzz("safetensors.index", any_file([dumped(index)], (), documents([index], None, values)), read)


def test_msgpack(tmp_path):
    pytest.importorskip("flax", reason="needs Flax")
    import msgpack
    from flax.serialization import msgpack_serialize

    from captionkit.backends.flax.models.msgpack import read_msgpack

    file = tmp_path / "flax_model.msgpack"
    tree = {"m": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float16)},
            "e": {"embedding": np.ones((1, 2, 3, 4), np.int8)}, "scale": np.ones(2)}  # fmt: skip
    seeds = [msgpack_serialize(tree), msgpack_serialize({"x": {"y": {}}}), msgpack_serialize([1])]

    def array(dice: Dice) -> bytes:
        """An array that is not what it says."""
        shape = [dice.pick(NUMBERS) for _ in range(dice.roll(4))]
        kind = dice.pick(
            ["float32", "O", "V8", "U4", "object", "f4,f4", "bfloat16", "datetime64", ""]
        )
        packed = msgpack.packb((shape, kind, bytes(dice.roll(64))), use_bin_type=True)
        value: object = msgpack.ExtType(dice.pick([1, 2, 3, 9]), packed)
        if dice.roll(3) == 0:
            chunks = {"0": value, "1": value}
            marked = {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}
            value = {k: v for k, v in marked.items() if dice.roll(5)}
        for _ in range(dice.pick([0, 1, 2, 3, 400])):
            value = {dice.pick(["kernel", "a/b", "", "é", 1, b"x", None]): value}
        return msgpack.packb({"a": value, "b": dice.pick([1, None, b"x", [], "y", 2**63])}
                             if dice.roll(4) else {"a": value})  # fmt: skip

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for name, tensor in read_msgpack(tmp_path).items():
            assert isinstance(name, str)
            assert isinstance(tensor, np.ndarray)

    tokens = [b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\1",
              b"\xdd\xff\xff\xff\xff", b"\xc1", b"\x81\xa1a" * 2000]  # fmt: skip
    fuzz("msgpack", any_file(seeds, tokens, array), read)


def test_msgpack_index(tmp_path):
    pytest.importorskip("flax", reason="needs Flax")
    from flax.serialization import msgpack_serialize

    from captionkit.backends.flax.models.msgpack import read_msgpack

    (tmp_path / "one.msgpack").write_bytes(msgpack_serialize({"scale": np.ones(2)}))
    index = {"weight_map": {"scale": "one.msgpack"}}

    def read(content: bytes) -> None:
        (tmp_path / "flax_model.msgpack.index.json").write_bytes(content)
        read_msgpack(tmp_path)

    values = ["one.msgpack", "../one.msgpack", "none.msgpack", json.dumps(index)]
    fuzz("msgpack.index", any_file([dumped(index)], (), documents([index], None, values)), read)
