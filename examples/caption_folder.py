"""Caption a folder into a csv file, and look at the captions to doubt.

    python examples/caption_folder.py photos/ --model git-critters

Interrupt it and start it again: it goes on where it was.
"""

from __future__ import annotations

import argparse
import json

import captionkit


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "images", nargs="+", help="folders, lists, tables, .tar shards, globs, URLs"
    )
    parser.add_argument("--model", required=True, help="a folder or a hub id")
    parser.add_argument("--output", default="captions.csv", help=".csv, .jsonl or .parquet")
    parser.add_argument("--review-below", type=float, default=-1.0, help="mean log-probability")
    given = parser.parse_args(arguments)

    # What is there already is kept; images that cannot be read are listed with the reason.
    result = captionkit.caption_files(
        given.images, given.model, output=given.output, review_below=given.review_below
    )
    print(f"{result.captioned} images captioned, {result.kept + result.done} had a caption")
    if result.failed_file:
        print(f"{result.failed} failed, see {result.failed_file}")

    # The least certain captions first: these are worth a look.
    if result.review_file:
        with open(result.review_file, encoding="utf-8") as file:
            for line in list(file)[:10]:
                row = json.loads(line)
                print(f"{row['score']:7.2f}  {row['image']}: {row['caption']}")


if __name__ == "__main__":
    main()
