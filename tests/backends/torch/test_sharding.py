"""FSDP: the losses of one process, real shares, checkpoints that others take up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import transformers
from two_processes import history, predictions, same_rows, write_photos

pytestmark = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="sharded=True needs transformers 5"
)
SCRIPT = """
    import json, sys
    import torch
    import captionkit
    from captionkit.backends.torch import trainer

    settings = json.loads(sys.argv[1])
    first = trainer.CaptionTrainer._save_checkpoint

    def saving(self, model, trial):
        def size(x):
            return getattr(x, "_local_tensor", x).numel() * x.element_size()
        held = {
            "weights": sum(size(p) for p in self.model.parameters()),
            "optimizer": sum(
                size(x) for state in self.optimizer.state.values() for x in state.values()
                if isinstance(x, torch.Tensor) and x.dim()
            ),
        }
        print("HELD", json.dumps(held), flush=True)
        first(self, model, trial)

    trainer.CaptionTrainer._save_checkpoint = saving
    torch.set_num_threads(1)
    recipe = settings.pop("recipe", None)
    captionkit.finetune(recipe, **settings)
"""
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]


def run(processes, **settings):
    """What each process held when it saved: bytes of weights and of the optimizer's state."""
    launcher = TOGETHER if processes == 2 else []
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(settings)]
    done = subprocess.run(
        [sys.executable, *launcher, *command] if launcher else command,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line for line in done.stdout.splitlines() if "HELD" in line]
    return [json.loads(line[line.index("{") :]) for line in lines]


@pytest.fixture(scope="module")
def settings(git_folder, pairs, tmp_path_factory):
    data = write_photos(pairs, tmp_path_factory.mktemp("data"))
    return {
        "model": str(git_folder), "data_dir": str(data), "backend": "torch", "device": "cpu",
        "batch_size": 4, "max_steps": 8, "save_steps": 4, "eval_steps": 4, "learning_rate": 1e-3,
        "logging_steps": 1, "metrics": ["wer"], "max_new_tokens": 8, "weight_decay": 0.1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    """(folder, what was held) of a run in one process and of a sharded one."""
    home = tmp_path_factory.mktemp("runs")
    one = run(1, **settings, output_dir=str(home / "one"))
    two = run(2, **settings, output_dir=str(home / "two"), sharded=True)
    return {"one": (home / "one", one), "two": (home / "two", two)}


def test_losses_are_those_of_one_process(runs):
    same_rows(history(runs["two"][0]), history(runs["one"][0]))
    assert predictions(runs["two"][0]) == predictions(runs["one"][0])


def test_each_process_holds_its_share(runs):
    whole, shares = runs["one"][1][0], runs["two"][1]
    assert len(shares) == 4  # two processes, two checkpoints
    for share in shares:
        for kind in ("weights", "optimizer"):
            assert 0.45 * whole[kind] < share[kind] < 0.55 * whole[kind], kind


@pytest.mark.parametrize(
    ("name", "processes", "sharded"),
    [
        ("two", 1, False),
        pytest.param("one", 2, True, marks=pytest.mark.long),
        pytest.param("two", 2, False, marks=pytest.mark.long),
    ],
)
def test_others_take_up_its_checkpoints(runs, tmp_path, name, processes, sharded):
    folder = tmp_path / name
    shutil.copytree(runs[name][0], folder)
    shutil.rmtree(folder / "checkpoint-8")
    run(processes, recipe=str(folder / "captionkit/recipe.yaml"), output_dir=str(folder),
        resume=True, sharded=sharded)  # fmt: skip
    same_rows(history(folder), history(runs["one"][0]))


def test_one_process_shares_with_nobody(settings, tmp_path):
    import captionkit

    with pytest.raises(captionkit.CaptionkitError, match="torchrun --nproc-per-node"):
        captionkit.finetune(**settings, output_dir=str(tmp_path / "no"), sharded=True)
