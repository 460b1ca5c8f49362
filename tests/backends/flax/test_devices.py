"""Several devices against one, and what becomes of devices that are not there."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from captionkit.backends.flax.devices import choose_precision, rows_per_pass
from captionkit.errors import ConfigError
from captionkit.recipe import TrainingConfig

RUNS = """
    import json, sys
    import numpy as np
    from PIL import Image
    import captionkit, jax

    folder, home = sys.argv[1:]
    draw = np.random.default_rng(0)
    colours = ["red", "green", "blue", "white"]
    pairs = [
        (Image.fromarray(draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)),
         " above ".join(draw.choice(colours, draw.integers(1, 5))))
        for _ in range(45)
    ]
    histories = {}
    for name, settings in {
        "one": {"devices": 1},
        "eight": {},
        "eight in two passes": {"accumulation_steps": 2},
    }.items():
        result = captionkit.finetune(
            model=folder, backend="flax", dataset=pairs, output_dir=f"{home}/{name}",
            max_steps=20, batch_size=16, learning_rate=1e-3, weight_decay=0.1, test_size=0.1,
            logging_steps=1, eval_steps=10, precision="fp32", metrics=["wer"], max_new_tokens=8,
            freeze=["encoder.encoder.layer.0.*"], **settings,
        )
        histories[name] = result.history
        info = json.load(open(f"{home}/{name}/captionkit/run.json"))
        assert info["devices"] == settings.get("devices", 8), info
    # from a checkpoint of eight devices one goes on, and the reverse
    import shutil
    for name, settings in {"one": {}, "eight": {"devices": 1}}.items():
        shutil.rmtree(f"{home}/{name}/checkpoint-20")
        result = captionkit.finetune(
            f"{home}/{name}/captionkit/recipe.yaml", dataset=pairs, resume=True,
            **{"devices": 8, **settings},
        )
        histories[f"{name}, then the other"] = result.history
    try:
        captionkit.finetune(model=folder, backend="flax", dataset=pairs, batch_size=12,
                            output_dir=f"{home}/no")
    except captionkit.CaptionkitError as error:
        histories["error"] = str(error)
    print(json.dumps(histories))
"""


@pytest.fixture(scope="module")
def histories(ved_folder, eight_devices, tmp_path_factory):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUNS), str(ved_folder),
         str(tmp_path_factory.mktemp("devices"))],
        env=eight_devices, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("other", ["eight", "eight in two passes"])
def test_the_number_of_devices_does_not_change_the_loss(histories, other):
    """40 training images: the last update of an epoch is not full, and devices differ in weight."""
    one = [row for row in histories["one"] if "loss" in row]
    many = [row for row in histories[other] if "loss" in row]
    assert [row["step"] for row in one] == list(range(1, 21))
    assert [row["loss"] for row in many] == pytest.approx([r["loss"] for r in one], rel=1e-5)
    assert [r["grad_norm"] for r in many] == pytest.approx([r["grad_norm"] for r in one], rel=1e-3)


def test_evaluation_on_several_devices_is_that_on_one(histories):
    ours, theirs = [
        [row["eval_loss"] for row in histories[name] if "eval_loss" in row]
        for name in ("one", "eight")
    ]
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("name", ["one", "eight"])
def test_a_run_goes_on_with_another_number_of_devices(histories, name):
    rows = histories[f"{name}, then the other"]
    assert len(rows) == len(histories[name])
    for a, b in zip(rows, histories[name]):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_a_batch_that_does_not_divide_is_refused(histories):
    assert "batch_size=12 does not divide by 8 devices x 1 accumulation steps" in histories["error"]
    assert "Choose a multiple of 8, or set devices" in histories["error"]


def test_rows_of_a_pass():
    training = TrainingConfig(batch_size=24, accumulation_steps=3)
    assert [rows_per_pass(training, n) for n in (1, 2, 4, 8)] == [8, 4, 2, 1]
    with pytest.raises(ConfigError, match="24 does not divide by 5 devices x 3"):
        rows_per_pass(training, 5)


def test_the_best_precision_of_a_device():
    class Device:
        def __init__(self, platform):
            self.platform = platform

    assert choose_precision("auto", Device("cpu")) == "fp32"
    assert choose_precision("auto", Device("gpu")) == "bf16"
    assert choose_precision("bf16", Device("cpu")) == "bf16"
    assert choose_precision("fp16", Device("gpu")) == "fp16"
