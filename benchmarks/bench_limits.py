"""What share of the machine's own limits is reached, by training, decoding and loading.

Limits, each the best of some repeats, on all cores:
  matrix peak       2 n^3 / seconds of the product of two fp32 n x n matrices, n = 2,048, torch's
                    and jax's own
  memory bandwidth  bytes / seconds of a sum over 512 MB of fp32, which reads them once
  JPEG decoding     photos / seconds of Pillow's `Image.open(...).convert("RGB")`, by two threads

Reached:
  training step     operations of a step (torch's FlopCounterMode: products and their gradients;
                    norms, activations and the optimizer are not counted) / seconds, of the peak of
                    the same framework. The arithmetic of both backends is the same.
  greedy decoding   bytes of the text weights that a token needs (all but embedding tables and the
                    image encoder) / seconds a token, of the memory bandwidth. Seconds a token:
                    those of 33 tokens less those of 1, by 32. One image, so that weights are read
                    for one row; and eight, where arithmetic counts too.
  the loader        photos / seconds of `read_batches` with the exact resize to 224 pixels, of the
                    rate of decoding alone
"""

from __future__ import annotations

import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import small_git
from PIL import Image
from results import interleaved, keep

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PHOTOS = Path(os.environ.get("CAPTIONKIT_BENCH_PHOTOS", SHARED / "coco-mini" / "val2017"))
SIDE, MEGABYTES, BATCH, TOKENS, REPEATS = 2048, 512, 4, 16, 5
WIDTH, LAYERS, PIXELS, VOCABULARY = 384, 6, 224, 30_000
TITLE = f"GIT of width {WIDTH}, {LAYERS} + {LAYERS} layers, {PIXELS} px, fp32, CPU"


def main() -> None:
    limits = {**matrix_peaks(), "memory": bandwidth(), "JPEG": decoding_rate()}
    for name, limit in limits.items():
        print(f"limit    {name:<14} {limit['value']:8.1f} {limit['unit']}")
    reached = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = small_git.write(Path(scratch), LAYERS, WIDTH, PIXELS, VOCABULARY)
        reached |= training(folder)
        reached |= greedy(folder)
    reached |= loading()
    for name, one in reached.items():
        one["share"] = one["value"] / limits[one["of"]]["value"]
        print(f"reached  {name:<32} {one['value']:8.1f} {one['unit']:<9} {one['share']:.0%}")
    keep("limits", {"title": TITLE, "limits": limits, "reached": reached})


def matrix_peaks() -> dict[str, dict]:
    import jax
    import jax.numpy as jnp
    import torch

    a = torch.rand(SIDE, SIDE)
    b = jnp.asarray(a.numpy())
    product = jax.jit(jnp.matmul)
    seconds = interleaved(
        {
            "torch": lambda: torch.matmul(a, a),
            "jax": lambda: jax.block_until_ready(product(b, b)),
        },
        REPEATS * 2, 2,
    )  # fmt: skip
    return {
        side: {"value": 2 * SIDE**3 / min(some) / 1e9, "unit": "GFLOP/s"}
        for side, some in seconds.items()
    }


def bandwidth() -> dict:
    import torch

    array = torch.ones(MEGABYTES * 1_000_000 // 4)
    seconds = interleaved({"sum": array.sum}, REPEATS, 2)["sum"]
    return {"value": MEGABYTES / 1000 / min(seconds), "unit": "GB/s"}


def decoding_rate() -> dict:
    photos = sorted(PHOTOS.glob("*.jpg"))

    def decode(photo: Path) -> None:
        with Image.open(photo) as image:
            image.convert("RGB")

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, photos))

    seconds = interleaved({"Pillow": run}, REPEATS)["Pillow"]
    return {"value": len(photos) / min(seconds), "unit": "photos/s"}


def training(folder: Path) -> dict[str, dict]:
    from torch.utils.flop_counter import FlopCounterMode

    steps = {
        "torch": small_git.torch_step(folder, BATCH, TOKENS),
        "flax": small_git.flax_step(folder, BATCH, TOKENS),
    }
    with FlopCounterMode(display=False) as counter:
        steps["torch"]()
    operations = counter.get_total_flops()
    seconds = interleaved(steps, REPEATS, 2)
    print(f"a step of {BATCH} images: {operations / 1e9:.1f} GFLOP")
    return {
        f"training step, {side}": {
            "value": operations / statistics.median(seconds[side]) / 1e9, "unit": "GFLOP/s",
            "of": {"flax": "jax"}.get(side, side),
        }
        for side in steps
    }  # fmt: skip


def greedy(folder: Path) -> dict[str, dict]:
    import captionkit

    size = text_bytes(folder)
    print(f"text weights of a token: {size / 1e6:.1f} MB")
    reached = {}
    for count in (1, 8):
        pictures = small_git.images(count, PIXELS)
        for side in ("torch", "flax"):
            captioner = captionkit.load(folder, backend=side)
            encoded = captioner.encode(pictures)
            seconds = interleaved(
                {
                    tokens: lambda tokens=tokens, captioner=captioner, encoded=encoded: (
                        captioner.caption(encoded, max_new_tokens=tokens)
                    )
                    for tokens in (1, 33)
                },
                REPEATS,
            )
            short, long = (statistics.median(some) for some in seconds.values())
            reached[f"greedy decoding, {count} image{'s' * (count > 1)}, {side}"] = {
                "value": size / ((long - short) / 32) / 1e9, "unit": "GB/s", "of": "memory",
            }  # fmt: skip
    return reached


def text_bytes(folder: Path) -> int:
    """Of the weights that a token's logits need: the text layers, their output, its projection."""
    from captionkit.tensors import TensorFiles

    tensors = TensorFiles(folder)
    return sum(
        tensors[name].nbytes
        for name in tensors
        if not name.startswith(("git.image_encoder.", "git.embeddings.", "git.visual_projection."))
    )


def loading() -> dict[str, dict]:
    from captionkit.data.loader import read_batches
    from captionkit.data.preprocess import Preprocessor

    photos = sorted(PHOTOS.glob("*.jpg"))
    batches = [photos[start : start + 16] for start in range(0, len(photos), 16)]
    preprocess = Preprocessor.square(224)

    def run() -> None:
        for _ in read_batches(preprocess.read, batches):
            pass

    seconds = interleaved({"loader": run}, REPEATS)["loader"]
    value = len(photos) / statistics.median(seconds)
    return {"the loader, to 224 px": {"value": value, "unit": "photos/s", "of": "JPEG"}}


if __name__ == "__main__":
    main()
