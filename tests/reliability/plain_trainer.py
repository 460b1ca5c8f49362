"""The same small run with the Hugging Face Trainer alone; what `killing.py` kills to compare.

    python plain_trainer.py - WORK

It resumes from the Trainer's latest checkpoint in WORK/run if there is one, as its documentation
says, and says where it is like `killable_run.py`. The Trainer is as it comes: only that a save has
begun and ended is said, and what the final weights are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from captionkit.testing.models import GIT

STEPS = 24


def main():
    run = Path(sys.argv[2]) / "run"
    torch.set_num_threads(1)
    set_seed(42)
    kind, values = GIT["model_type"], {k: v for k, v in GIT.items() if k != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=40, **values))
    arguments = TrainingArguments(
        output_dir=str(run), max_steps=STEPS, save_steps=2, save_total_limit=2, logging_steps=3,
        per_device_train_batch_size=4, learning_rate=2e-3, report_to=[], disable_tqdm=True,
        use_cpu=True, seed=42, remove_unused_columns=False,
    )  # fmt: skip
    trainer = Talking(model=model, args=arguments, train_dataset=examples())
    latest = get_last_checkpoint(str(run)) if run.is_dir() else None
    say("start", latest.rpartition("-")[2] if latest else 0)
    trainer.train(resume_from_checkpoint=latest)
    save_file(
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        run / "final.safetensors",
    )
    losses = [(row["step"], row["loss"]) for row in trainer.state.log_history if "loss" in row]
    (run / "final.json").write_text(json.dumps(losses))
    say("end")


class Talking(Trainer):
    def _save_checkpoint(self, *arguments, **more):
        say("save", self.state.global_step)
        super()._save_checkpoint(*arguments, **more)
        say("saved", self.state.global_step)

    def training_step(self, *arguments, **more):
        say("step", self.state.global_step + 1)
        return super().training_step(*arguments, **more)


def examples():
    """Random pictures with random captions of equal length."""
    draw = np.random.default_rng(0)
    size = GIT["vision_config"]["image_size"]
    ids = torch.from_numpy(draw.integers(4, 40, (12, 8)))
    pixels = torch.from_numpy(draw.normal(size=(12, 3, size, size)).astype(np.float32))
    return [
        {"pixel_values": pixels[i], "input_ids": ids[i], "labels": ids[i],
         "attention_mask": torch.ones(8, dtype=torch.long)}
        for i in range(12)
    ]  # fmt: skip


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    main()
