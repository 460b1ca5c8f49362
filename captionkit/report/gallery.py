"""The gallery: which images are shown, what stands under each, and what they are sorted by."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captionkit.report.measures import better, in_order, label, leading, number
from captionkit.report.run import Prediction
from captionkit.report.thumbnails import shape_of
from captionkit.report.words import Piece, align


@dataclass(frozen=True)
class Measure:
    """Something to sort and filter by; the ends are what sorting starts with."""

    key: str
    label: str
    descending: bool  # whether the worst end is the highest value
    worst: str
    best: str


@dataclass(frozen=True)
class Said:
    """One model's caption of one image."""

    run: str  # "a" or "b" in a comparison, else nothing
    text: str
    pieces: tuple[Piece, ...]
    confidence: float | None
    scores: list[tuple[str, str]]
    more_scores: list[tuple[str, str]]
    before: str | None


@dataclass(frozen=True)
class Card:
    """One image of the gallery."""

    image_id: str
    picture: str | None
    said: tuple[Said, ...]
    nearest: tuple[Piece, ...]
    others: tuple[str, ...]
    values: list[float | None]

    @property
    def alt(self) -> str:
        """The generated caption."""
        texts = [said.text or "(empty caption)" for said in self.said]
        return texts[0] if len(texts) == 1 else f"A: {texts[0]} – B: {texts[1]}"


@dataclass(frozen=True)
class Gallery:
    """The cards in the order in which they stand without a script."""

    cards: list[Card]
    measures: list[Measure]
    note: str
    shape: str

    @property
    def data(self) -> dict[str, Any]:
        """What the script sorts and filters by: a row a card, a column a measure."""
        measures = [
            {
                "key": m.key,
                "label": m.label,
                "descending": m.descending,
                "ends": [m.worst, m.best],
            }
            for m in self.measures
        ]
        return {"measures": measures, "rows": [card.values for card in self.cards]}


def keys_of(predictions: Sequence[Prediction]) -> list[str]:
    """The metrics that images have, the best known first."""
    return in_order(key for prediction in predictions for key in prediction.metrics)


def choose(
    predictions: Sequence[Prediction], main: str | None, limit: int
) -> tuple[list[Prediction], str]:
    """Worst first; of too many the worst, the best and a sample, with a sentence that says so."""
    ordered = sorted(predictions, key=lambda p: _badness(p, main))
    if len(ordered) <= limit:
        return ordered, ""
    ends = limit // 4
    middle = ordered[ends : len(ordered) - ends]
    places = sorted(random.Random(0).sample(range(len(middle)), limit - 2 * ends))
    shown = ordered[:ends] + [middle[i] for i in places] + ordered[len(ordered) - ends :]
    by = f" by {label(main)}" if main else " by confidence"
    return shown, (
        f"Showing {limit:,} of {len(ordered):,} images: the {ends:,} worst and the {ends:,} best"
        f"{by}, and {limit - 2 * ends:,} drawn at random from the rest. All figures elsewhere "
        "on this page count every image."
    )


def build_gallery(
    predictions: Sequence[Prediction],
    note: str,
    keys: Sequence[str],
    pictures: Mapping[int, str],
    earlier: Mapping[str, str],
) -> Gallery:
    """Cards for predictions that were chosen and put in order."""
    has_confidence = any(p.confidence is not None for p in predictions)
    measures = [measure(key) for key in keys]
    if has_confidence:
        measures.append(measure("confidence"))
    cards = []
    for p in predictions:
        aligned = align(p.text, p.references)
        said = say(p, keys, aligned.caption if aligned else None)
        others = tuple(r for i, r in enumerate(p.references) if not aligned or i != aligned.index)
        values = [rounded(p.metrics.get(key)) for key in keys]
        if has_confidence:
            values.append(rounded(p.confidence))
        picture = pictures.get(p.index) or earlier.get(p.image_id)
        nearest = aligned.reference if aligned else ()
        cards.append(Card(p.image_id, picture, (said,), nearest, others, values))
    return Gallery(cards, measures, note, shape_of(card.picture for card in cards))


def say(
    prediction: Prediction,
    keys: Sequence[str],
    pieces: tuple[Piece, ...] | None,
    run: str = "",
) -> Said:
    """What stands under a picture for one model."""

    def scores(some: Sequence[str]) -> list[tuple[str, str]]:
        return [(label(key), number(key, prediction.metrics.get(key))) for key in some]

    shown = leading(keys)
    return Said(
        run,
        prediction.text,
        pieces or (Piece(prediction.text, False),),
        prediction.confidence,
        scores(shown),
        scores([key for key in keys if key not in shown]),
        prediction.before,
    )


def measure(key: str) -> Measure:
    """How images are sorted by a per-image score or by confidence."""
    if key == "confidence":
        return Measure(key, "Confidence (%)", False, "Least sure first", "Surest first")
    return Measure(key, label(key), better(key) == "lower", "Worst first", "Best first")


def rounded(value: float | None) -> float | None:
    """Six digits are more than anybody reads, and keep the page small."""
    return None if value is None else round(value, 6)


def _badness(prediction: Prediction, main: str | None) -> tuple[bool, float, int]:
    value = prediction.metrics.get(main) if main else prediction.confidence
    if value is None:
        return True, 0.0, prediction.index
    return False, -value if main and better(main) == "lower" else value, prediction.index
