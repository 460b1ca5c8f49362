"""The parts of a recipe: the data, the training, and how captions are generated.

No field name occurs in two parts, so every setting has one flat name. The docstring under a field
is its help text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from captionkit.errors import ConfigError
from captionkit.settings import check_types, require


@dataclass(frozen=True)
class DataConfig:
    """Which images and captions, and how they are split."""

    dataset: str = ""
    """Name of a dataset source (see `captionkit datasets`), e.g. critters, coco, imagefolder.
    Empty: guessed from the files given."""
    data_dir: str | None = None
    """Folder of the data: a COCO folder, an image folder, a local copy of a hub set. For csv and
    jsonl: where relative image paths start (default: the file's own folder)."""
    dataset_id: str | None = None
    """Hub id of the data, for the sources `hub` and `pokemon-blip`."""
    dataset_config: str | None = None
    """Configuration of a hub set; for `coco` 2014, 2017 or karpathy (default: the one that is
    there)."""
    split: str = "train"
    """The split to train on."""
    train_file: str | None = None
    """A csv, jsonl or json-lines file of training images and captions; or Parquet or tar shards: a
    file, a folder, or a pattern such as shards/train-{000..099}.tar. For coco: a text file of image
    ids or file names."""
    validation_file: str | None = None
    """The same, for validation."""
    test_file: str | None = None
    """The same, for testing."""
    image_column: str | None = None
    """Column with the image or its path (default: the first of image, image_path, file_name, path,
    filepath, filename, url)."""
    caption_column: str | None = None
    """Column with the caption or captions (default: the first of caption, captions, text, sentence,
    sentences, caption_text)."""
    test_size: float = 0.1
    """Share of the images held out for validation where the source has no validation split of its
    own; 0: none."""
    captions: Literal["random", "all", "first"] = "random"
    """Of several captions an image: a random one each epoch, all of them in each epoch, or only the
    first (then also the only reference)."""
    group_by_content: bool = False
    """Keep files that are the same byte for byte on one side of the split, whatever their names,
    and warn of those that a set's own splits share. Reads every image once."""
    min_caption_words: int | None = None
    """Leave out captions of fewer words."""
    max_caption_words: int | None = None
    """Leave out captions of more words."""
    min_image_size: int | None = None
    """Leave out images whose shorter side has fewer pixels."""
    max_image_size: int | None = None
    """Leave out images whose longer side has more pixels."""
    mix: tuple[dict[str, Any], ...] = ()
    """Several sources at once: a list in a recipe file, each entry the data settings of one source
    and its `weight`."""
    mix_epoch_images: int | None = None
    """Images that an epoch of a mixture shows (default: as many as its sources have)."""
    streaming: bool = False
    """Read hub, Parquet and tar sets as they come instead of indexing them: for sets larger than
    the disk. Needs max_steps."""
    shuffle_buffer: int = 10_000
    """Images of a stream that the next one is drawn from; they are held in memory, encoded."""
    allow_outside_paths: bool = False
    """Allow paths in metadata that lead out of the data folder."""
    allow_urls: bool = False
    """Fetch images that metadata give as http(s) addresses; private addresses stay refused."""
    max_train_samples: int | None = None
    """Use only the first N training images."""
    max_eval_samples: int | None = None
    """Use only the first N validation images."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An image that cannot be read stops the run, or is skipped, counted and listed in
    captionkit/skipped.jsonl."""
    workers: int | None = None
    """Threads that read training images ahead of the model; they change nothing but the speed
    (default: the cores, at most 16)."""
    fast_jpeg: bool = False
    """Decode large JPEGs at a half, a quarter or an eighth of their size where that is enough:
    faster, and the pixels differ a little from those that the model was trained on."""
    image_cache_gb: float = 0.0
    """Keep decoded training images in captionkit's cache, in files of at most so many GB in all;
    0: keep none."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "test_size", 0 <= self.test_size < 1, "a share, from 0 to below 1")
        require(self, "workers", self.workers is None or self.workers >= 1, "at least 1")
        require(self, "image_cache_gb", self.image_cache_gb >= 0, "0 or more")
        for name in (
            "max_train_samples", "max_eval_samples", "min_caption_words", "max_caption_words",
            "min_image_size", "max_image_size", "mix_epoch_images", "shuffle_buffer",
        ):  # fmt: skip
            require(
                self, name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1"
            )
        for least, most in (
            ("min_caption_words", "max_caption_words"), ("min_image_size", "max_image_size"),
        ):  # fmt: skip
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise ConfigError(f"{least}={low} is more than {most}={high}: nothing is left.")


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation, in terms that mean the same on every backend."""

    epochs: float = 3.0
    """Passes over the training images."""
    max_steps: int | None = None
    """Stop after so many optimizer updates; overrides epochs."""
    batch_size: int = 32
    """Images in one optimizer update, over all devices and accumulation steps."""
    eval_batch_size: int = 32
    """Images captioned at once in evaluation."""
    accumulation_steps: int = 1
    """Passes that one update is made of; a pass holds batch_size / (devices x accumulation_steps)
    images."""
    learning_rate: float = 5e-5
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up: to zero in a line, to zero in a half cosine,
    or not at all."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises from zero to its peak."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """adafactor keeps a row and a column of statistics of a matrix instead of two numbers a weight:
    less memory. It has none of the adam_ settings."""
    weight_decay: float = 0.0
    """Decoupled weight decay; never applied to biases and normalisation layers."""
    adam_beta1: float = 0.9
    """AdamW's first-moment decay."""
    adam_beta2: float = 0.999
    """AdamW's second-moment decay."""
    adam_epsilon: float = 1e-8
    """AdamW's epsilon."""
    max_grad_norm: float = 1.0
    """Clip the global gradient norm to this; 0: do not clip."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over the vocabulary."""
    max_caption_tokens: int | None = None
    """Cut longer training captions to so many tokens, the end token kept; default: cut nothing, and
    a caption longer than the model allows is an error."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward and backward pass; auto: the best that the device has."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each layer in the backward pass: less memory, about a third more
    time, the same result."""
    freeze: tuple[str, ...] = ()
    """What is not trained: encoder, decoder, all-but-cross-attention, or patterns (`*` matches
    anything) of tensor names as they stand in model.safetensors."""
    seed: int = 42
    """Seeds the split, the order, the drawn captions, the initial weights and the dropout."""
    logging_steps: int = 10
    """Report the loss every N updates."""
    eval_steps: int | None = None
    """Evaluate every N updates; 0: only at the end; default: every epoch."""
    save_steps: int | None = None
    """Save a checkpoint every N updates; 0: never (then the last weights are kept, not the best);
    default: whenever it evaluates."""
    save_total_limit: int | None = None
    """Keep only the newest N checkpoints (and the best); default: all."""
    metrics: tuple[str, ...] = ("wer", "rouge")
    """Metrics of the generated captions (see `captionkit metrics`)."""
    best_metric: str | None = None
    """Which value picks the best checkpoint, e.g. wer or rougeL; default: the evaluation loss."""
    load_best: bool = True
    """End with the weights of the best evaluation instead of the last step."""
    early_stopping_patience: int | None = None
    """Stop after so many evaluations without a better one; default: never."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "epochs", self.epochs > 0, "above 0")
        for name in ("batch_size", "eval_batch_size", "accumulation_steps", "logging_steps"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_steps", "save_total_limit", "early_stopping_patience"):
            require(
                self, name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1"
            )
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "seed"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        require(self, "seed", self.seed < 2**32, "below 2**32")
        for name in ("eval_steps", "save_steps"):
            require(
                self, name, getattr(self, name) is None or getattr(self, name) >= 0, "0 or more"
            )
        for name in ("adam_beta1", "adam_beta2", "label_smoothing"):
            require(self, name, 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("learning_rate", "adam_epsilon"):
            require(self, name, getattr(self, name) > 0, "above 0")
        require(
            self,
            "max_caption_tokens",
            self.max_caption_tokens is None or self.max_caption_tokens >= 3,
            "at least 3 (start, one word, end)",
        )
        if self.batch_size % self.accumulation_steps:
            raise ConfigError(
                f"batch_size={self.batch_size} does not divide by "
                f"accumulation_steps={self.accumulation_steps}. batch_size counts the images of "
                "one update, over all its passes: choose a multiple."
            )


@dataclass(frozen=True)
class Decoding:
    """How captions are generated."""

    max_new_tokens: int = 32
    """Longest caption, in tokens; those of a prompt are not counted."""
    prompt: str = ""
    """Words that every caption begins with, such as "a photography of"; the model goes on from
    them, and its score is of what it adds."""
    num_beams: int = 1
    """Beams of the beam search; 1: greedy."""
    length_penalty: float = 1.0
    """Beam scores are divided by length ** length_penalty: above 0 favours longer captions."""
    early_stopping: bool = False
    """Stop as soon as num_beams captions are finished."""
    do_sample: bool = False
    """Draw tokens instead of taking the most probable."""
    temperature: float = 1.0
    """Sampling: divide the logits by this."""
    top_p: float = 1.0
    """Sampling: draw from the smallest set of tokens with this much probability."""
    top_k: int = 0
    """Sampling: draw from the k most probable tokens; 0: all."""
    num_return_sequences: int = 1
    """Captions to return for each image, best first."""

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "max_new_tokens", self.max_new_tokens >= 1, "at least 1")
        require(self, "num_beams", self.num_beams >= 1, "at least 1")
        require(self, "temperature", self.temperature > 0, "above 0")
        require(self, "top_p", 0 < self.top_p <= 1, "in (0, 1]")
        require(self, "top_k", self.top_k >= 0, "0 or more")
        require(self, "num_return_sequences", self.num_return_sequences >= 1, "at least 1")
        drawn_one_by_one = self.do_sample and self.num_beams == 1
        if self.num_return_sequences > self.num_beams and not drawn_one_by_one:
            raise ConfigError(
                f"num_return_sequences={self.num_return_sequences} is more than "
                f"num_beams={self.num_beams}: set as many beams, or do_sample with num_beams=1."
            )
