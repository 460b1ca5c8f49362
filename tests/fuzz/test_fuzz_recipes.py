"""Recipe files that others wrote: YAML and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from fuzz.harness import fuzz
from fuzz.mutations import any_file, documents, dumped

from captionkit.recipe import Recipe, shipped_recipes

RECIPES: list[dict[str, Any]] = [
    Recipe().to_dict(),
    {"model": "git-tiny", "data": {"dataset": "critters"}, "training": {"epochs": 2}},
    {
        "encoder": "a", "decoder": "b", "backend": "flax", "backend_options": {"parallel": "pmap"},
        "data": {"mix": [{"dataset": "coco", "data_dir": "x", "weight": 2}, {"dataset": "hub"}]},
        "training": {"freeze": ["encoder", "decoder.*"], "metrics": ["cider"], "learning_rate": 1},
        "decoding": {"num_beams": 4, "do_sample": True},
    },
]  # fmt: skip
VALUES = ["critters", "random", "fp16", "skip", 1e-5, "1e-5", ["wer"], {"model": "x"}, [{}], "yes"]
YAML_TOKENS = [
    b"&a ", b"*a", b"<<: *a\n", b"!!python/object/apply:os.system [true]", b"!!binary aGk=",
    b"!!binary =", b"!!timestamp x", b"2001-99-99", b"2001-12-14t21:59:43.10-05:00", b"!!set {a}",
    b"!!int x", b'!!int ""', b"!!float x", b"!!bool x", b"!!omap [a: 1]", b"!!pairs [a]",
    b"!!str {}", b"!!map []", b"!!seq {}", b"? ", b"? [a]\n: 1\n", b"- ", b"---\n", b"...\n", b"| ",
    b"%YAML 9.9\n", b"%TAG ! x\n", b"1:99", b"0b2", b".inf", b".nan", b"~", b"=", b"@", b"`",
    b"model: x\n", b"  model: x\n",
]  # fmt: skip
SHIPPED = [Recipe.named(name).to_yaml().encode()[:400] for name in shipped_recipes()]


def as_yaml(document: Any) -> bytes:
    # the plain writer of JSON is one of YAML too, and many times as fast as PyYAML's
    return dumped(document) if len(json.dumps(document)) > 600 else _block(document)


def _block(document: Any) -> bytes:
    try:
        return yaml.safe_dump(document, sort_keys=False).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError):
        return dumped(document)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("recipe.yaml", any_file(
            [b"model: x\ntraining:\n  epochs: 3\n", b"data: {dataset: a, mix: [{dataset: b}]}\n",
             b"a: &a {model: x}\n<<: *a\n", *SHIPPED],
            YAML_TOKENS, documents(RECIPES[1:], as_yaml, VALUES),
        )),
        ("recipe.json", any_file(
            [dumped(recipe) for recipe in RECIPES], (), documents(RECIPES, values=VALUES)
        )),
    ],
)  # fmt: skip
def test_recipes(tmp_path, name, inputs):
    file = tmp_path / name

    def read(content: bytes) -> None:
        file.write_bytes(content)
        recipe = Recipe.from_file(file)
        # what was read can be kept, and is the same when it is read again
        for kept in (tmp_path / "kept.yaml", tmp_path / "kept.json"):
            text = recipe.to_yaml() if kept.suffix == ".yaml" else recipe.to_json()
            kept.write_text(text, encoding="utf-8")
            assert repr(Recipe.from_file(kept)) == repr(recipe)  # not a number is not itself

    fuzz(name, inputs, read)
