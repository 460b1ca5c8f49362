"""From captions and images to batches: the dataset, the order and the collation of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy
import torch
from torch.utils.data import Dataset, Sampler

from captionkit.backends.torch.loss import IGNORED
from captionkit.data.captions import decoder_pairs
from captionkit.data.order import visits
from captionkit.errors import ImageError

if TYPE_CHECKING:
    from captionkit.data.dataset import CaptionDataset
    from captionkit.data.preprocess import Preprocessor

Visit = tuple[int, int]  # (image index, caption index)
NOBODY = -1  # the image index of a visit that only fills up the last batch


class TrainingExamples(Dataset):
    """Decodes and preprocesses the image of a visit, and looks up its caption's token ids."""

    def __init__(
        self,
        dataset: CaptionDataset,
        token_ids: Sequence[Sequence[Sequence[int]]],
        preprocess: Preprocessor,
        length: int,
    ):
        self.dataset = dataset
        self.token_ids = token_ids  # by image, by caption
        self.preprocess = preprocess
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        index, caption = visit
        if index == NOBODY:
            return {}
        example = self.dataset[index]
        try:
            pixels = self.preprocess(example.image)
        except ImageError as error:
            # not raised here: this may be another process, whose errors arrive as tracebacks
            return {"skipped": (example.image_id, str(error))}
        return {"pixels": pixels, "ids": self.token_ids[index][caption]}


class EpochOrder(Sampler):
    """The visits of an epoch, in the order that core draws from the seed.

    multiple: fill up to a multiple of so many with visits to nobody. Of several processes each
    then has as many batches as the others, and no image is shown twice for it.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        captions: Literal["random", "all", "first"],
        seed: int,
        multiple: int = 1,
    ):
        self.dataset = dataset
        self.captions = captions
        self.seed = seed
        self.multiple = multiple
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Visit]:
        order = visits(self.dataset, self.captions, self.seed, self.epoch)
        filling = [(NOBODY, NOBODY)] * (len(self) - len(order))
        return iter([*map(tuple, order.tolist()), *filling])

    def __len__(self) -> int:
        count = len(self.dataset)
        if self.captions == "all":
            count = int(self.dataset.caption_counts().sum())
        return -(-count // self.multiple) * self.multiple


class Collate:
    """Examples to a batch, padded to its longest caption.

    Gives `pixel_values` uint8 `(batch, 3, height, width)`, `input_ids` and `attention_mask`
    `(batch, length)`, `labels` `(batch, length)` (the token that follows each input; IGNORED at
    padding), and `skipped`, a list of (image_id, reason). Scaling to float happens on the device,
    which moves a quarter of the bytes.

    pad_token_id: for inputs; size: (height, width) of the images; start_id: see `decoder_pairs`.
    """

    def __init__(self, pad_token_id: int, size: tuple[int, int], start_id: int | None = None):
        self.pad_token_id = pad_token_id
        self.size = size
        self.start_id = start_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Called by the DataLoader with the examples of one pass."""
        skipped = [example["skipped"] for example in examples if "skipped" in example]
        kept = [example for example in examples if "pixels" in example]
        if not kept:
            # a batch needs a row: one black image from which nothing is learned
            blank = numpy.zeros((*self.size, 3), numpy.uint8)
            kept = [{"pixels": blank, "ids": []}]
        ids = [example["ids"] for example in kept]
        batch = pad_captions(ids, self.pad_token_id, self.start_id)
        pixels = numpy.stack([example["pixels"] for example in kept])
        batch["pixel_values"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return {**batch, "skipped": skipped}


def pad_captions(
    ids: Sequence[Sequence[int]], pad_token_id: int, start_id: int | None = None
) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `labels`, `(batch, longest inputs)`.

    start_id: the token that every caption starts from, where its ids do not begin with it.
    """
    pairs = [decoder_pairs(caption, start_id) for caption in ids]
    length = max(1, max(len(inputs) for inputs, _ in pairs))
    input_ids = torch.full((len(ids), length), pad_token_id)
    labels = torch.full((len(ids), length), IGNORED)
    mask = torch.zeros((len(ids), length), dtype=torch.long)
    for row, (inputs, targets) in enumerate(pairs):
        input_ids[row, : len(inputs)] = torch.as_tensor(inputs)
        labels[row, : len(inputs)] = torch.as_tensor(targets)
        mask[row, : len(inputs)] = 1
    mask[:, 0] = 1  # no row without a position to attend to
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
