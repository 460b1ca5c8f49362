"""What crosses between core and a backend: plain Python, numpy and PIL types, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy
    import PIL.Image

    from captionkit.data.dataset import CaptionDataset
    from captionkit.evaluation import Evaluator
    from captionkit.recipe import Recipe

    ImageSource: TypeAlias = str | Path | bytes | PIL.Image.Image | numpy.ndarray


@dataclass(frozen=True)
class Example:
    """One image with its captions.

    `source` is what the dataset holds: a path, an http(s) URL, encoded bytes, a PIL image or an
    array. Nothing is decoded until `image` is asked for.
    """

    source: ImageSource = field(repr=False)
    captions: tuple[str, ...]
    image_id: str

    @property
    def image(self) -> PIL.Image.Image:
        """The upright RGB image; decoded anew on each access. Raises `ImageError`."""
        from captionkit.data.images import open_image
        from captionkit.errors import ImageError

        try:
            return open_image(self.source)
        except ImageError as error:
            raise ImageError(f"Image {self.image_id!r}: {error}") from None


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    `score` is its length-normalised log-probability: the mean, over the generated tokens and
    the end token, of the natural logarithm of the model's own (untempered) probability.
    `token_probabilities`, where they were asked for, are these tokens one by one: the piece of
    text that each adds, and its probability. The pieces joined, behind the prompt, are the text.
    An end token adds no text, nor does one that only begins a character; a caption that was cut
    off has no end token.
    """

    text: str
    score: float
    token_probabilities: tuple[tuple[str, float], ...] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class TrainEvent:
    """What a backend reports while it trains; the only way in which it reports.

    kind: "start" (values: `parameters`, `trainable`, `device`, ...), "step" (after every
    optimizer update; values: `images`), "log" (values: `loss`, `learning_rate`, `grad_norm`,
    ... since the last log), "evaluate" (values: what the evaluator returned), "save" (values:
    `path`), "skip" (values: `image_id`, `reason`), "end".
    """

    kind: Literal["start", "step", "log", "evaluate", "save", "skip", "end"]
    step: int
    total_steps: int
    epoch: float
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What a metric computed: one value a key over the corpus, and one a key and pair."""

    corpus: dict[str, float]
    per_image: dict[str, list[float]]


@runtime_checkable
class Metric(Protocol):
    """Scores generated captions against references, pair by pair."""

    keys: tuple[str, ...]  # the names of the values that compute() gives
    higher_is_better: bool

    def update(self, prediction: str, references: Sequence[str]) -> None:
        """Take in one pair."""

    def compute(self) -> Scores:
        """The scores of all pairs so far, per image in the order of the updates."""


@runtime_checkable
class Captioner(Protocol):
    """A model that is ready to caption, whichever backend holds it."""

    # One may have more: `checkpoint`, the folder that it was loaded from; `defaults`, its own
    # decoding settings by name; `facts`, what a report says of it; `preprocess`, a `Preprocessor`,
    # with which the threads of bulk captioning resize images.

    def encode(self, images: Sequence[ImageSource]) -> Any:
        """Decode and preprocess images once; `caption` and `loss` take the result as `images`."""

    def caption(self, images: Any, **decoding: Any) -> list[Caption]:
        """Caption one image or many; `decoding` are the fields of `Decoding`.

        And `batch_size`, `token_probabilities` (True: each `Caption` has them) and `seeds` (one an
        image: what is drawn for it then depends on it alone).
        """

    def loss(self, images: Any, captions: Sequence[str | Sequence[str]]) -> tuple[float, int]:
        """Teacher-forced negative log-likelihood, summed over target tokens, and their number.

        For each image one caption or several, each of which counts. Raises `ConfigError` for
        captions of fewer or more images.
        """


@dataclass(frozen=True)
class TrainingJob:
    """All that a backend needs to train. Hub ids are already folders, settings already checked."""

    recipe: Recipe
    options: Any  # an instance of the backend's options_type, or None
    model: Path  # config, tokenizer and image processor; no weights: train from scratch
    output_dir: Path
    train: CaptionDataset
    evaluator: Evaluator | None
    on_event: Callable[[TrainEvent], None]
    should_stop: Callable[[], bool]  # asked after every step; True: save a checkpoint and return
    higher_is_better: bool = False  # the direction of recipe.training.best_metric
    resume_from: Path | None = None  # a checkpoint-N folder whose manifest holds
    history: Sequence[Mapping[str, Any]] = ()  # rows of history.jsonl up to that checkpoint


@runtime_checkable
class Backend(Protocol):
    """A framework that can train and run captioning models."""

    name: ClassVar[str]
    model_types: ClassVar[frozenset[str]]  # as in config.json: "git", "vision-encoder-decoder", ...
    options_type: ClassVar[type | None]  # dataclass of the settings that only this backend has
    # A backend that joins encoders and decoders to one model may have `parts` as well: the model
    # types of its "encoder" and its "decoder", which `captionkit backends` then shows. One that
    # runs in several processes has a method `connect`, see `captionkit.processes`; `train` and
    # `load` connect too.

    def missing(self) -> str | None:
        """None where the framework is installed, else the command that installs it."""

    def check(self, recipe: Recipe, options: Any) -> None:
        """Raise ConfigError for what this machine cannot do, before anything is loaded."""

    def train(self, job: TrainingJob) -> Path:
        """Train, write a Hugging Face folder to `job.output_dir`, and return it."""

    def load(
        self,
        checkpoint: Path,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> Captioner:
        """Load a checkpoint folder for captioning. Raises `CheckpointError`."""
