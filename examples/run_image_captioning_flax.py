"""The image-captioning example of transformers for JAX/Flax: the same flags, the same files.

    python examples/run_image_captioning_flax.py --output_dir results \\
        --encoder_model_name_or_path google/vit-base-patch16-224-in21k \\
        --decoder_model_name_or_path gpt2 --dataset_name coco --data_dir data \\
        --do_train --do_eval --predict_with_generate --num_train_epochs 1 --eval_steps 500 \\
        --learning_rate 3e-5 --per_device_train_batch_size 32 --per_device_eval_batch_size 32 \\
        --max_target_length 32 --num_beams 8 --logging_steps 10 --overwrite_output_dir

or with one .json file that holds them all. New work is better begun with `captionkit finetune
--recipe vit-gpt2-coco`, which says the same in fewer words; this script is for commands that exist.

Not as the original did it: the last batch is not dropped, the data are shuffled also without
block_size, checkpoints can be resumed, ROUGE is the best over all references of an image, and the
loss is a mean over tokens. `captionkit/` in the output folder has the report and the history.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import captionkit

SCRIPTS_OF_COCO = ("ydshieh/dummy_coco_dataset", "ydshieh/coco_dataset_script", "coco")
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
NO_EFFECT = ("overwrite_cache", "use_fast_tokenizer")
WHOLE_DATASET_GB = 1000.0  # what the images take bounds it, and 5 GB of the disk are left free


@dataclass
class TrainingArguments:
    """How to train, and what to do."""

    output_dir: str
    overwrite_output_dir: bool = False
    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    block_size: int = field(
        default=0,
        metadata={"help": "0: keep decoded training images on disk; else: decode each epoch."},
    )
    learning_rate: float = 5e-5
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    label_smoothing_factor: float = 0.0
    num_train_epochs: float = 3.0
    warmup_steps: int = 0
    logging_steps: int = 500
    eval_steps: int | None = field(default=None, metadata={"help": "Default: every epoch."})
    seed: int = 42
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_token: str | None = None


@dataclass
class ModelArguments:
    """Which model to begin with."""

    model_name_or_path: str | None = None
    encoder_model_name_or_path: str | None = None
    decoder_model_name_or_path: str | None = None
    cache_dir: str | None = None
    use_fast_tokenizer: bool = field(default=True, metadata={"help": "No effect: always fast."})
    dtype: str = field(default="float32", metadata={"help": "float32, float16 or bfloat16"})
    token: str | None = None
    trust_remote_code: bool = False


@dataclass
class DataTrainingArguments:
    """Which data, and how captions are cut and generated."""

    dataset_name: str | None = None
    dataset_config_name: str | None = None
    data_dir: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    train_file: str | None = field(default=None, metadata={"help": "csv, or json lines"})
    validation_file: str | None = None
    test_file: str | None = None
    max_target_length: int = 128
    val_max_target_length: int | None = None
    max_train_samples: int | None = field(default=None, metadata={"help": "Captions, not images."})
    max_eval_samples: int | None = None
    max_predict_samples: int | None = None
    preprocessing_num_workers: int | None = None
    predict_with_generate: bool = False
    num_beams: int = 1
    overwrite_cache: bool = field(default=False, metadata={"help": "No effect."})


def main(arguments: list[str] | None = None) -> None:
    model, data, training = parse(sys.argv[1:] if arguments is None else arguments)
    if token := model.token or training.hub_token:
        os.environ["HF_TOKEN"] = token
    if model.cache_dir:
        os.environ["HF_HUB_CACHE"] = model.cache_dir
    if model.dtype not in PRECISIONS:
        raise captionkit.CaptionkitError(
            f"dtype={model.dtype!r} is not possible: it must be one of {', '.join(PRECISIONS)}."
        )
    output = Path(training.output_dir)
    with tempfile.TemporaryDirectory() as scratch:
        source = model_folder(model, training.seed, Path(scratch))
        if training.do_train:
            source = train(model, data, training, source)
        output.mkdir(parents=True, exist_ok=True)
        if training.do_train and training.do_eval:
            kept = output / "captionkit"
            lines = (kept / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line]
            pairs = [(row["prediction"], row["references"]) for row in rows]
            metrics = json.loads((kept / "metrics.json").read_text(encoding="utf-8"))
            write_results(output, "eval", metrics, pairs, source, data)
        elif training.do_eval:
            evaluate(output, "eval", "validation", source, data, training, data.max_eval_samples)
        if training.do_predict:
            evaluate(output, "test", "test", source, data, training, data.max_predict_samples)


def parse(arguments: list[str]) -> Any:
    """The three groups of arguments, from flags or from one JSON file."""
    from transformers import HfArgumentParser

    kinds = (ModelArguments, DataTrainingArguments, TrainingArguments)
    parser = HfArgumentParser(kinds, description=(__doc__ or "").split("\n")[0])
    if len(arguments) == 1 and arguments[0].endswith(".json"):
        groups = parser.parse_json_file(arguments[0])
    else:
        *groups, unknown = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True
        )
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    for name in NO_EFFECT:
        group = next(group for group in groups if hasattr(group, name))
        if getattr(group, name) != type(group).__dataclass_fields__[name].default:
            print(f"{name} has no effect here", file=sys.stderr)
    return groups


def model_folder(model: ModelArguments, seed: int, scratch: Path) -> str:
    """A whole model: the one that was named, or an encoder and a decoder made into one."""
    if model.model_name_or_path:
        return model.model_name_or_path
    if not (model.encoder_model_name_or_path and model.decoder_model_name_or_path):
        raise captionkit.CaptionkitError(
            "Which model? Give --model_name_or_path, or --encoder_model_name_or_path and "
            "--decoder_model_name_or_path."
        )
    from captionkit.create import create
    from captionkit.models import resolve_model

    parts = (model.encoder_model_name_or_path, model.decoder_model_name_or_path)
    encoder, decoder = (resolve_model(part, model.trust_remote_code) for part in parts)
    return str(create(encoder, decoder, scratch / "model", seed, model.trust_remote_code))


def train(
    model: ModelArguments, data: DataTrainingArguments, training: TrainingArguments, source: str
) -> str:
    """Fine-tune, and write the log; returns the folder of the result."""
    import jax

    from captionkit.data.dataset import cache_dir

    kept = "not kept" if training.block_size else f"kept below {cache_dir()}"
    print(f"block_size={training.block_size}: decoded images are {kept}", file=sys.stderr)
    devices = jax.local_device_count()
    splits = {"train": lower_cased(data, "train", training, data.max_train_samples)}
    if training.do_eval:
        splits["validation"] = lower_cased(data, "validation", training, data.max_eval_samples)
    result = captionkit.finetune(
        model=source,
        backend="flax",
        trust_remote_code=model.trust_remote_code,
        dataset=splits,
        captions="all",
        test_size=0,
        output_dir=training.output_dir,
        overwrite_output_dir=training.overwrite_output_dir,
        push_to_hub=training.push_to_hub,
        hub_model_id=training.hub_model_id,
        epochs=training.num_train_epochs,
        batch_size=training.per_device_train_batch_size * devices,
        eval_batch_size=training.per_device_eval_batch_size * devices,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=0.0,
        label_smoothing=training.label_smoothing_factor,
        max_caption_tokens=data.max_target_length,
        precision=PRECISIONS[model.dtype],
        seed=training.seed,
        logging_steps=training.logging_steps,
        eval_steps=training.eval_steps,
        save_total_limit=1,
        load_best=False,
        metrics=("rouge",),
        workers=data.preprocessing_num_workers,
        image_cache_gb=0.0 if training.block_size else WHOLE_DATASET_GB,
        **decoding(data),
    )
    with open(result.output_dir / "log", "a", encoding="utf-8") as log:
        for row in result.history:
            log.write(" | ".join(f"{name}: {value}" for name, value in row.items()) + "\n")
    return str(result.output_dir)


def lower_cased(
    data: DataTrainingArguments, split: str, training: TrainingArguments, most: int | None
) -> Any:
    """A split with its captions in lower case, the first `most` of them."""
    import numpy as np

    settings: dict[str, Any] = {}
    name = "coco" if data.dataset_name in SCRIPTS_OF_COCO else data.dataset_name or ""
    if name != "coco":  # whose columns are known
        settings = {"image_column": data.image_column, "caption_column": data.caption_column}
    if training.do_train and not training.do_eval:
        settings["test_size"] = 0.0
    found = captionkit.load_dataset(
        name, split, training.seed, data_dir=data.data_dir,
        dataset_config=data.dataset_config_name, train_file=data.train_file or data.test_file,
        validation_file=data.validation_file, test_file=data.test_file,
        allow_outside_paths=True,  # the csv files of such commands hold absolute paths
        **settings,
    )  # fmt: skip
    if most is not None:
        found = found.keep_captions(np.arange(found.caption_counts().sum()) < most)
    return found.map_captions(str.lower)


def decoding(data: DataTrainingArguments) -> dict[str, int]:
    length = data.val_max_target_length or data.max_target_length
    return {"num_beams": data.num_beams, "max_new_tokens": length}


def evaluate(
    output: Path,
    prefix: str,
    split: str,
    source: str,
    data: DataTrainingArguments,
    training: TrainingArguments,
    most: int | None,
) -> None:
    """Caption and score a split with the model in a folder."""
    result = captionkit.evaluate(
        captionkit.load(source, backend="flax"), lower_cased(data, split, training, most),
        metrics=("rouge",), batch_size=training.per_device_eval_batch_size, **decoding(data),
    )  # fmt: skip
    pairs = [(row.prediction, row.references) for row in result.predictions]
    write_results(output, prefix, result.metrics, pairs, source, data)


def write_results(
    output: Path,
    prefix: str,
    metrics: dict[str, float],
    pairs: Iterable[tuple[str, Iterable[str]]],
    source: str,
    data: DataTrainingArguments,
) -> None:
    """The original's `..._results.json` and, of generated captions, `..._generation.json`."""
    from transformers import AutoTokenizer

    pairs = list(pairs)
    values = {f"{prefix}_{name}": value for name, value in metrics.items()}
    if data.predict_with_generate:
        tokenizer = AutoTokenizer.from_pretrained(source)
        lengths = [len(ids) for ids in tokenizer([text for text, _ in pairs])["input_ids"]]
        values[f"{prefix}_gen_len"] = sum(lengths) / len(lengths)
        rows = [{"label": label, "pred": text} for text, labels in pairs for label in labels]
        write_json(output / f"{prefix}_generation.json", rows)
    else:
        values = {name: value for name, value in values.items() if name.endswith("_loss")}
    write_json(output / f"{prefix}_results.json", dict(sorted(values.items())))
    print("  ".join(f"{name} {value:.4f}" for name, value in values.items()))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except captionkit.CaptionkitError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
