"""BLEU, ROUGE-L and CIDEr against pycocoevalcap, the code of the COCO caption evaluation.

Both score the same captions of 5,000 images with 5 references, in turns, and must agree; from
tokens, and from raw text (the peer's tokeniser is a Java program). Then the memory that ours takes
for more and more captions, each in a process of its own; `--million` adds a million.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from results import interleaved, keep, report

from captionkit.metrics import ptb, score_pairs
from captionkit.metrics.bleu import Bleu
from captionkit.metrics.cider import Cider
from captionkit.metrics.rouge_l import RougeL

IMAGES, REFERENCES, REPEATS = 5_000, 5, 5
Pair = tuple[str, list[str]]


def main() -> None:
    raw = list(captions(IMAGES))
    tokens = [(ptb.ptb_tokenize(p), [ptb.ptb_tokenize(r) for r in refs]) for p, refs in raw]
    check_equal(ours(tokens, tokenized=True), theirs(tokens))
    seconds = interleaved(
        {"pycocoevalcap": lambda: theirs(tokens), "captionkit": lambda: ours(tokens, True)},
        REPEATS,
        warm_up=0,
    )
    title = f"BLEU + ROUGE-L + CIDEr of {IMAGES:,} images, {REFERENCES} references"
    report("metrics_from_tokens", f"{title}, from tokens", seconds, target=3)

    if shutil.which("java"):
        check_equal(ours(raw), theirs(tokenized_by_java(raw)))
        seconds = interleaved(
            {
                "pycocoevalcap": lambda: theirs(tokenized_by_java(raw)),
                "captionkit": lambda: ours(raw),
            },
            REPEATS,
            warm_up=0,
        )
        report("metrics_from_text", f"{title}, with tokenisation", seconds, target=2)
    else:
        print("with tokenisation: left out, there is no Java runtime")

    sizes = [60_000, 300_000, *([1_000_000] if "--million" in sys.argv else [])]
    keep("metrics_memory", {"title": "Memory of the same", "runs": [memory(n) for n in sizes]})


def check_equal(one: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    """Both give the same corpus and per-image values."""
    for key, expected in other.items():
        np.testing.assert_allclose(one[key], expected, rtol=1e-9, atol=1e-15, err_msg=key)


def ours(pairs: list[Pair], tokenized: bool = False) -> dict[str, list[float]]:
    """Per-image values by key, with every cache cold."""
    re.purge()
    for cached in (ptb.ptb_tokenize, ptb._chunk, ptb._rules):
        cached.cache_clear()
    metrics = [Bleu(tokenized), RougeL(tokenized), Cider(tokenized=tokenized)]
    scores = score_pairs(pairs, metrics)
    return {key: [scores.corpus[key], *values] for key, values in scores.per_image.items()}


def theirs(pairs: list[Pair]) -> dict[str, list[float]]:
    """The same from pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {i: references for i, (_, references) in enumerate(pairs)}
    said = {i: [prediction] for i, (prediction, _) in enumerate(pairs)}
    corpus, per_image = Bleu(4).compute_score(truth, said, verbose=0)
    values = {f"bleu{n + 1}": [corpus[n], *per_image[n]] for n in range(4)}
    for key, scorer in (("rouge_l", Rouge()), ("cider", Cider())):
        total, each = scorer.compute_score(truth, said)
        values[key] = [total, *each]
    return values


def tokenized_by_java(pairs: list[Pair]) -> list[Pair]:
    """What the COCO evaluation does first."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    truth = {i: [{"caption": r} for r in refs] for i, (_, refs) in enumerate(pairs)}
    said = {i: [{"caption": prediction}] for i, (prediction, _) in enumerate(pairs)}
    with quiet():
        truth, said = PTBTokenizer().tokenize(truth), PTBTokenizer().tokenize(said)
    return [(said[i][0], truth[i]) for i in range(len(pairs))]


def memory(count: int) -> dict[str, float]:
    """Peak memory and time for so many captions, predictions included."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(measure, (count,))
    print(
        f"{count:>9,} captions: {result['peak_mb']:,.0f} MB at the peak, of which "
        f"{result['start_mb']:,.0f} MB before the first; {result['seconds']:.0f} s"
    )
    return result


def measure(count: int) -> dict[str, float]:
    start_mb, start = peak_mb(), time.perf_counter()
    score_pairs(captions(count // (1 + REFERENCES)), [Bleu(), RougeL(), Cider()])
    seconds = time.perf_counter() - start
    return {"captions": count, "peak_mb": peak_mb(), "start_mb": start_mb, "seconds": seconds}


def peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss of the parent down
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def captions(images: int, seed: int = 0) -> Iterator[Pair]:
    """Captions that resemble COCO's: 8 to 14 words, a few thousand of them in all, as one types."""
    rng = np.random.default_rng(seed)
    syllables = [
        "ba",
        "de",
        "gi",
        "ko",
        "lu",
        "mar",
        "nes",
        "ti",
        "pol",
        "ran",
        "sa",
        "ver",
        "wo",
        "zen",
    ]
    vocabulary = ["".join(rng.choice(syllables, rng.integers(1, 4))) for _ in range(6_000)]
    common = ["a", "the", "of", "on", "with", "in", "is", "and", "next", "to"]
    rarity = 1 / np.arange(1, len(vocabulary) + 1)
    cumulative = np.cumsum(rarity / rarity.sum())
    for _ in range(images):
        topic = [vocabulary[i] for i in np.searchsorted(cumulative, rng.random(9))]

        def caption(topic: list[str] = topic) -> str:
            size = rng.integers(8, 15)
            draws = rng.random(size)
            picks = rng.integers(0, 1_000_000, size)
            words = [
                common[k % len(common)] if d < 0.45
                else topic[k % len(topic)] if d < 0.9
                else vocabulary[int(np.searchsorted(cumulative, k / 1_000_000))]
                for d, k in zip(draws, picks, strict=True)
            ]  # fmt: skip
            # no single letter at the end: what Java makes of its full stop hangs on the next line
            words[-1] = topic[0]
            return dressed(words, rng)

        yield caption(), [caption() for _ in range(REFERENCES)]


def dressed(words: list[str], rng: np.random.Generator) -> str:
    """With capitals, full stops, and now and then what needs more care."""
    chance, place = rng.random(), int(rng.integers(1, len(words)))
    if chance < 0.08:
        words[place - 1] += ","
    elif chance < 0.12:
        words[place] = f"{words[place]}-{words[0]}"
    elif chance < 0.15:
        words[place] += "'s"
    elif chance < 0.18:
        words[place] = str(rng.integers(2, 100))
    elif chance < 0.19:
        words[place] = f'"{words[place]}"'
    elif chance < 0.20:
        words[place] = f"({words[place]})"
    text = " ".join(words)
    return text[0].upper() + text[1:] + ("." if rng.random() < 0.7 else "")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what a child process writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main()
