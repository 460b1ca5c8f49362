"""Score a file of captions as the COCO evaluation does, and show the best and the worst.

    python examples/score_like_coco.py results.json captions_val2014.json
    python examples/score_like_coco.py predictions.jsonl            # a run's own, with references

BLEU, ROUGE-L and CIDEr over PTB tokens, as in papers, without Java. `captionkit score` prints the
same figures; this script shows how to get at the values of single images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from captionkit.score_files import FileScores, score_files


def main(arguments: list[str] | None = None) -> FileScores:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("predictions", type=Path, help="COCO results, .jsonl, .csv or .txt")
    parser.add_argument("references", type=Path, nargs="?", help="COCO annotations, .jsonl, .csv")
    parser.add_argument("--by", default="cider", help="the value that best and worst are of")
    parser.add_argument("--show", type=int, default=3, help="how many of each")
    given = parser.parse_args(arguments)

    scores = score_files(given.predictions, given.references, ("bleu", "rouge_l", "cider"))
    print(f"{len(scores.image_ids)} images")
    for name, value in scores.scores.corpus.items():
        print(f"  {name:<8} {value:.4f}")

    # of the corpus BLEU is no mean of these, see docs/metrics.md
    values = scores.scores.per_image[given.by]
    order = sorted(range(len(values)), key=lambda i: -values[i])
    for title, some in (("best", order[: given.show]), ("worst", order[::-1][: given.show])):
        print(f"{title} by {given.by}:")
        for i in some:
            print(f"  {values[i]:7.3f}  {scores.image_ids[i]}: {scores.predictions[i]}")
    return scores


if __name__ == "__main__":
    main()
