"""Peak memory of an evaluation by the number of images: ours beside the guide's.

A small GIT with GIT-base's vocabulary and image tokens, which is what the memory depends on; each
measurement is a process of its own. The guide keeps 709 x 30,522 logits an image.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile

from results import keep

COUNTS = {"guide": (4, 8, 16), "captionkit": (21, 42, 84)}


def main() -> None:
    peaks: dict[str, dict[int, float]] = {}
    for name, counts in COUNTS.items():
        peaks[name] = {}
        for count in counts:
            command = [sys.executable, __file__, name, str(count)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks[name][count] = json.loads(output.splitlines()[-1])
            print(f"{name:<12} {count:>3} images: peak {peaks[name][count]:.0f} MB")
    slopes = {name: (by[max(by)] - by[min(by)]) / (max(by) - min(by)) for name, by in peaks.items()}
    for name, slope in slopes.items():
        print(f"{name:<12} {slope:+.2f} MB an image")
    keep("evaluation_memory", {"title": "peak memory of an evaluation", "MB": peaks,
                               "MB_an_image": slopes})  # fmt: skip


def measure(name: str, count: int) -> None:
    """Print the peak resident memory of one evaluation, in MB."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import numpy as np
    import torch
    from PIL import Image
    from transformers import GitConfig, GitForCausalLM, Trainer, TrainingArguments

    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 64}  # fmt: skip
    model = GitForCausalLM(GitConfig(**small, vision_config=small)).eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (224, 224, 3), np.uint8) for _ in range(count)]
    if name == "guide":
        ids = [101, *range(2000, 2012), 102] + [0] * 498
        rows = [
            {
                "pixel_values": torch.from_numpy(image).permute(2, 0, 1) / 255.0,
                "input_ids": torch.tensor(ids),
                "labels": torch.tensor(ids),
            }
            for image in images
        ]
        arguments = TrainingArguments(
            tempfile.gettempdir(), per_device_eval_batch_size=4, use_cpu=True, report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False, label_names=["labels"],
        )  # fmt: skip
        trainer = Trainer(
            model, arguments, eval_dataset=rows,
            compute_metrics=lambda p: {"images": len(p.predictions.argmax(-1))},
        )  # fmt: skip
        trainer.evaluate()
    else:
        from captionkit.backends.torch.captioner import TorchCaptioner
        from captionkit.data.captions import build_word_tokenizer
        from captionkit.data.dataset import CaptionDataset
        from captionkit.data.preprocess import Preprocessor
        from captionkit.evaluation import evaluate_captioner

        tokenizer = build_word_tokenizer(f"word{i}" for i in range(30_518))
        captioner = TorchCaptioner(model, tokenizer, Preprocessor.square(224))
        with tempfile.TemporaryDirectory() as folder:
            for i, image in enumerate(images):
                Image.fromarray(image).save(f"{folder}/{i}.png")
            del images
            pairs = [(f"{folder}/{i}.png", "word1 word2 " * 6) for i in range(count)]
            evaluate_captioner(captioner, CaptionDataset.from_pairs(pairs, "noise"), batch_size=4)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
