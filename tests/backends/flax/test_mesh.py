"""A mesh with an fsdp axis: the losses of one device, real shares, checkpoints for any number."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from captionkit.backends.flax.devices import choose_devices
from captionkit.backends.flax.options import FlaxOptions
from captionkit.errors import ConfigError

SCRIPT = """
    import json, shutil, sys
    import numpy as np
    from PIL import Image
    import captionkit, jax
    from captionkit.backends.flax import trainer

    folder, home, runs, resumed = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
    draw = np.random.default_rng(0)
    colours = ["red", "green", "blue", "white"]
    pairs = [
        (Image.fromarray(draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)),
         " above ".join(draw.choice(colours, draw.integers(1, 5))))
        for _ in range(45)
    ]
    held, first = [], trainer.CaptionTrainer.save

    def saving(self):
        def on_first(tree):
            return sum(
                shard.data.nbytes for leaf in jax.tree.leaves(tree)
                for shard in leaf.addressable_shards if shard.device == jax.devices()[0]
            )
        held.append([on_first(self.state.params), on_first(self.state.moments)])
        first(self)

    trainer.CaptionTrainer.save = saving
    told = {"held": {}, "histories": {}}
    for name, settings in runs.items():
        result = captionkit.finetune(
            model=folder, backend="flax", dataset=pairs, output_dir=f"{home}/{name}",
            max_steps=12, batch_size=16, learning_rate=1e-3, weight_decay=0.1, test_size=0.1,
            logging_steps=1, eval_steps=6, precision="fp32", metrics=["wer"], max_new_tokens=8,
            freeze=["encoder.encoder.layer.0.*"], **settings,
        )
        told["histories"][name] = result.history
        told["held"][name] = held[-1]
    for name, (run, settings) in resumed.items():
        shutil.copytree(f"{home}/{run}", f"{home}/{name}")
        shutil.rmtree(f"{home}/{name}/checkpoint-12")
        result = captionkit.finetune(
            f"{home}/{name}/captionkit/recipe.yaml", dataset=pairs, resume=True,
            output_dir=f"{home}/{name}", **settings,
        )
        told["histories"][name] = result.history
    print(json.dumps(told))
"""
MESH = {"parallel": "mesh"}


def tell(environment, folder, home, runs, resumed):
    """The histories, and what the first of eight devices held: bytes of weights and moments."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(home),
         json.dumps(runs), json.dumps(resumed)],
        env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # what the partitioner says where activations are cut as weights are
    assert "rematerialization" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told(eight_devices, ved_folder, tmp_path_factory):
    runs = {"one": {"devices": 1}, "fsdp 8": {**MESH, "fsdp": 8}}
    resumed = {"8, then 2": ["fsdp 8", {"devices": 2, "fsdp": 2}]}
    return tell(eight_devices, ved_folder, tmp_path_factory.mktemp("mesh"), runs, resumed)


def same(rows, expected, most=1e-5):
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for a, b in zip(rows, expected):
        for key in set(b) - {"images_per_second", "epoch"}:  # epochs are counted in passes
            tolerance = 1e-3 if key == "grad_norm" else most
            assert a[key] == pytest.approx(b[key], rel=tolerance), (a["step"], key)


def test_losses_are_those_of_one_device(told):
    same(told["histories"]["fsdp 8"], told["histories"]["one"])


def test_a_device_holds_its_share(told):
    """An eighth, and what does not divide: of this model a few biases."""
    for shares, whole in zip(told["held"]["fsdp 8"], told["held"]["one"]):
        assert whole / 8 <= shares < whole / 7


def test_another_number_goes_on(told):
    same(told["histories"]["8, then 2"], told["histories"]["one"])


@pytest.mark.long
def test_every_form_gives_the_losses_of_one_device(eight_devices, ved_folder, tmp_path):
    runs = {
        "one": {"devices": 1},
        "mesh": MESH,
        "2 x 4": {**MESH, "fsdp": 4, "accumulation_steps": 2},
        "8": {**MESH, "fsdp": 8, "optimizer": "adafactor"},
        "one, adafactor": {"devices": 1, "optimizer": "adafactor"},
    }
    resumed = {
        "one, then 8": ["one", {**MESH, "fsdp": 8, "devices": 8}],
        "2 x 4, then one": ["2 x 4", {"devices": 1, "parallel": "pmap", "fsdp": 1}],
        "2 x 4, then pmap": ["2 x 4", {"parallel": "pmap", "fsdp": 1}],
        "8, then one": ["8", {"devices": 1, "fsdp": 1}],
    }
    histories = tell(eight_devices, ved_folder, tmp_path, runs, resumed)["histories"]
    for name in ("mesh", "2 x 4", "one, then 8", "2 x 4, then one", "2 x 4, then pmap"):
        same(histories[name], histories["one"])
    for name in ("8", "8, then one"):
        # adafactor divides by statistics of few numbers, which carry rounding on
        same(histories[name], histories["one, adafactor"], 1e-4)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="fsdp=3 does not divide 1 devices"):
        choose_devices(FlaxOptions(parallel="mesh", fsdp=3, devices=1))
    with pytest.raises(ConfigError, match="needs parallel='mesh'"):
        FlaxOptions(fsdp=2)
