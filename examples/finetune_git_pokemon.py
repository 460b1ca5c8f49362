"""The transformers image-captioning guide (GIT on Pokémon BLIP captions) as one script.

    python examples/finetune_git_pokemon.py                                   # from the hub
    python examples/finetune_git_pokemon.py --data-dir my-pokemon             # a local copy
    python examples/finetune_git_pokemon.py --model git-tiny --data-dir ...   # from scratch

Step for step as in the guide, without its faults: captions are padded to the longest in their
batch and not to 512 tokens, padding is not learned, and the word error rate is that of generated
captions. `--data-dir` is a folder in the schema of the set: images with metadata.jsonl (columns
`file_name` and `text`), or an Arrow or Parquet copy with the columns `image` and `text`.
"""

from __future__ import annotations

import argparse

import captionkit


def main(arguments: list[str] | None = None) -> captionkit.FinetuneResult:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="microsoft/git-base")
    parser.add_argument("--data-dir", help="a local copy of the data")
    parser.add_argument("--dataset-id", help="another copy on the hub")
    parser.add_argument("--output-dir", default="git-base-pokemon")
    parser.add_argument("--epochs", type=float, default=50)
    parser.add_argument("--batch-size", type=int, default=64, help="two passes of 32 in the guide")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--push-to-hub", action="store_true")
    given = parser.parse_args(arguments)

    # Load the dataset and look at it. The split is 90 to 10, by image, from the recipe's seed.
    data = {"data_dir": given.data_dir, "dataset_id": given.dataset_id}
    train = captionkit.load_dataset("pokemon-blip", split="train", **data)
    validation = captionkit.load_dataset("pokemon-blip", split="validation", **data)
    print(f"{len(train)} images to train on, {len(validation)} to validate on")
    for example in [train[i] for i in range(3)]:
        print(f"  {example.image.size[0]} x {example.image.size[1]}: {example.captions[0]}")

    # Fine-tune: the recipe holds every setting of the guide (`captionkit recipes` prints it).
    result = captionkit.finetune(
        "git-pokemon",
        model=given.model,
        output_dir=given.output_dir,
        epochs=given.epochs,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        push_to_hub=given.push_to_hub,
        **data,
    )
    print(f"word error rate of generated captions: {result.metrics['wer']:.3f}")

    # Inference, on an image that the model has not seen.
    caption = result.captioner.caption(validation[0].image, max_new_tokens=50)[0]
    print(f"{caption.text}   (reference: {validation[0].captions[0]})")
    print(f"samples before and after training: {result.output_dir}/captionkit/samples.png")
    print(f"report: {result.report}")
    return result


if __name__ == "__main__":
    main()
