"""Bulk captioning of photos end to end, beside plain loops over the files with HF `generate`.

Photos of `../shared/data/coco-mini`, 20 tokens, greedy, fp32, CPU; from files on the disk to a file
of captions. The peers open, convert and preprocess with transformers' own image processor. Models
are loaded before, and have random weights: the arithmetic is the same.

    python benchmarks/bench_bulk.py [git] [flax]
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from bulk_models import SHARED, write_git, write_vit_gpt2
from PIL import Image
from results import interleaved, report
from transformers import AutoImageProcessor, AutoTokenizer, GitForCausalLM
from transformers import VisionEncoderDecoderModel as VisionEncoderDecoder

import captionkit
from captionkit.bulk import caption_files

PHOTOS, TOKENS, BATCH, REPEATS = 32, 20, 16, 9


def main() -> None:
    wanted = sys.argv[1:] or ["git", "flax"]
    photos = sorted((SHARED / "coco-mini").glob("*2017/*.jpg"))[:PHOTOS]
    if not photos:
        sys.exit(f"There are no photos in {SHARED / 'coco-mini'}.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "photos").mkdir()
        for photo in photos:
            shutil.copy(photo, folder / "photos")
        what = f"{len(photos)} COCO photos, {TOKENS} tokens, greedy, fp32, CPU"
        if "git" in wanted:
            git(folder, f"ViT-S-size GIT, {what}")
        if "flax" in wanted:
            flax(folder, f"ViT-S + 6-layer GPT-2, {what}")


def git(folder: Path, what: str) -> None:
    """3x and 1.1x."""
    write_git(folder / "git")
    peer = GitForCausalLM.from_pretrained(folder / "git").eval()
    contestants = {
        "one by one": plain_loop(folder, folder / "git", peer, 1),
        f"batches of {BATCH}": plain_loop(folder, folder / "git", peer, BATCH),
        "captionkit": bulk(folder, captionkit.load(folder / "git", device="cpu")),
    }
    seconds = interleaved(contestants, REPEATS)
    same_words(folder)
    one, batches, ours = seconds.values()
    for name, peer_seconds, target in (("one_by_one", one, 3.0), ("in_batches", batches, 1.1)):
        pair = {name: peer_seconds, "captionkit": ours}
        report(f"bulk_git_{name}", f"{what}, plain loop {name.replace('_', ' ')}", pair, target)


def flax(folder: Path, what: str) -> None:
    """1.25x."""
    write_vit_gpt2(folder / "ved")
    peer = VisionEncoderDecoder.from_pretrained(folder / "ved").eval()
    contestants = {
        "torch": plain_loop(folder, folder / "ved", peer, BATCH),
        "captionkit": bulk(folder, captionkit.load(folder / "ved", backend="flax")),
    }
    seconds = interleaved(contestants, REPEATS)
    same_words(folder)
    report("bulk_flax", f"{what}, torch's plain loop in batches of {BATCH}", seconds, 1.25)


def plain_loop(
    folder: Path, checkpoint: Path, model: torch.nn.Module, batch_size: int
) -> Callable[[], None]:
    """What a user writes by hand."""
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    paths = sorted((folder / "photos").iterdir())

    @torch.inference_mode()
    def run() -> None:
        rows = []
        for start in range(0, len(paths), batch_size):
            images = [Image.open(path).convert("RGB") for path in paths[start : start + batch_size]]
            pixel_values = processor(images, return_tensors="pt").pixel_values
            ids = model.generate(pixel_values=pixel_values, max_new_tokens=TOKENS, do_sample=False)
            rows += tokenizer.batch_decode(ids, skip_special_tokens=True)
        pairs = zip(paths, rows, strict=True)
        lines = [json.dumps({"image": path.name, "caption": row}) for path, row in pairs]
        (folder / "plain.jsonl").write_text("\n".join(lines))

    return run


def bulk(folder: Path, captioner: captionkit.types.Captioner) -> Callable[[], None]:
    """The same with captionkit."""

    def run() -> None:
        (folder / "captions.jsonl").unlink(missing_ok=True)
        shutil.rmtree(folder / ".captionkit", ignore_errors=True)
        caption_files(
            folder / "photos", captioner, output=str(folder / "captions.jsonl"), batch_size=BATCH,
            max_new_tokens=TOKENS,
        )  # fmt: skip

    return run


def same_words(folder: Path) -> None:
    """Both wrote the same captions: the work is the same."""
    files = [folder / "plain.jsonl", folder / "captions.jsonl"]
    plain, ours = ([json.loads(line) for line in file.open()] for file in files)
    for a, b in zip(plain, ours, strict=True):
        assert " ".join(a["caption"].split()) == b["caption"], (a, b)


if __name__ == "__main__":
    main()
