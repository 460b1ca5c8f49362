"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from captionkit.errors import ConfigError
from captionkit.report.curves import compared_curves
from captionkit.report.facts import (
    lede,
    recipe_differences,
    run_rows,
    version_rows,
    warnings_of,
)
from captionkit.report.gallery import (
    Card,
    Gallery,
    Measure,
    Said,
    choose,
    keys_of,
    measure,
    rounded,
    say,
)
from captionkit.report.histograms import Histogram, histogram
from captionkit.report.language import language_of
from captionkit.report.measures import (
    better,
    change,
    direction,
    in_order,
    label,
    main_measure,
    meaning,
    number,
)
from captionkit.report.render import render_page
from captionkit.report.run import Prediction, Run, read_run
from captionkit.report.thumbnails import Pictures, earlier_thumbnails, shape_of, thumbnails
from captionkit.report.words import Piece, align

_LIMIT = 2000


def compare_runs(
    folders: Sequence[Path], images: Pictures | None = None, output: Path | None = None
) -> Path:
    """Write a page that compares two runs, and return its path.

    `folders` are the two folders with the runs' files, first the one to compare with. `images(i)`
    gives the picture of row i of the first run's predictions.jsonl, or None; without it, pictures
    are taken from the runs' own reports. `output` is the page (default: comparison.html in the
    second folder). Images are matched by id. Raises ConfigError unless there are two folders,
    DataError where one holds no run, OutputError where the page cannot be written.
    """
    if len(folders) != 2:
        raise ConfigError(f"A comparison needs two runs, found {len(folders)}.")
    a, b = (read_run(Path(folder)) for folder in folders)
    output = Path(output) if output is not None else b.folder / "comparison.html"
    names = _names(a, b)
    pairs, note = _pairs(a, b)
    keys = in_order([*keys_of(a.predictions), *keys_of(b.predictions)])
    main = main_measure(keys)
    gallery = _gallery(a, pairs, keys, main, images, [r.folder / "report.html" for r in (a, b)])
    context = {
        "title": f"{names[0]} and {names[1]}",
        "kind": "Comparison",
        "names": names,
        "runs": [{"title": run.title, "lede": lede(run)} for run in (a, b)],
        "warnings": [
            f"{name}: {text}"
            for name, run in zip(names, (a, b), strict=True)
            for text in warnings_of(run, language_of(run.predictions))
        ],
        "problems": [*note, *a.problems, *b.problems],
        "metrics": _metric_rows(a, b),
        "outcomes": [o for key in keys if (o := _outcome(key, pairs))],
        "gallery": gallery,
        "histograms": _histograms(a, b, keys, names),
        "curves": compared_curves([(names[0], a.history), (names[1], b.history)]),
        "languages": _language_rows(a, b),
        "differences": recipe_differences(a.recipe, b.recipe),
        "run_rows": _side_by_side(run_rows(a), run_rows(b)),
        "version_rows": _side_by_side(version_rows(a), version_rows(b)),
    }
    return render_page("compare.html.j2", output, context)


def _names(a: Run, b: Run) -> tuple[str, str]:
    if a.name != b.name:
        return a.name, b.name
    return f"{a.name} (A)", f"{b.name} (B)"


def _pairs(a: Run, b: Run) -> tuple[list[tuple[Prediction, Prediction]], list[str]]:
    """The images that both captioned, and a sentence where they did not caption the same."""
    theirs = {p.image_id: p for p in b.predictions}
    pairs = [(p, theirs[p.image_id]) for p in a.predictions if p.image_id in theirs]
    only_a, only_b = len(a.predictions) - len(pairs), len(b.predictions) - len(pairs)
    if not only_a and not only_b:
        return pairs, []
    return pairs, [
        f"The runs did not caption the same images: {len(pairs):,} are in both, {only_a:,} only in "
        f"A, {only_b:,} only in B. The overall scores are therefore not strictly comparable; the "
        "image by image figures are."
    ]


def _metric_rows(a: Run, b: Run) -> list[dict[str, str]]:
    rows = []
    for key in in_order([*a.metrics, *b.metrics]):
        first, second = a.metrics.get(key), b.metrics.get(key)
        row = {
            "label": label(key),
            "direction": direction(key),
            "meaning": meaning(key),
            "a": number(key, first),
            "b": number(key, second),
            "change": "–",
            "verdict": "",
        }
        if first is not None and second is not None:
            row["change"] = change(key, second - first)
            way = better(key)
            if way and row["a"] != row["b"]:
                row["verdict"] = "B" if (second < first) == (way == "lower") else "A"
        rows.append(row)
    return rows


def _outcome(key: str, pairs: Sequence[tuple[Prediction, Prediction]]) -> dict[str, Any] | None:
    """On how many images each run scores better."""
    changes = [_gain(key, a, b) for a, b in pairs]
    known = [gain for gain in changes if gain is not None]
    if not known or better(key) is None:
        return None
    wins_b, wins_a = sum(g > 1e-9 for g in known), sum(g < -1e-9 for g in known)
    return {
        "label": label(key),
        "images": len(known),
        "a": wins_a,
        "b": wins_b,
        "same": len(known) - wins_a - wins_b,
    }


def _gain(key: str, a: Prediction, b: Prediction) -> float | None:
    """How much better b scores, whichever way is better."""
    if key not in a.metrics or key not in b.metrics:
        return None
    difference = b.metrics[key] - a.metrics[key]
    return -difference if better(key) == "lower" else difference


def _gallery(
    a: Run,
    pairs: Sequence[tuple[Prediction, Prediction]],
    keys: Sequence[str],
    main: str | None,
    images: Pictures | None,
    reports: Sequence[Path],
) -> Gallery:
    """The images of both, those first where B gained least."""
    partner = {first.index: second for first, second in pairs}
    chosen, note = choose([first for first, _ in pairs], main, _LIMIT)
    if main:
        gains = {p.index: _gain(main, p, partner[p.index]) for p in chosen}
        chosen.sort(key=lambda p: (gains[p.index] is None, gains[p.index] or 0.0))
    pictures = thumbnails(images, chosen)
    earlier: Mapping[str, str] = earlier_thumbnails(reports) if images is None else {}
    measures = [m for key in keys for m in _measures(key)]
    has_confidence = any(p.confidence is not None for pair in pairs for p in pair)
    if has_confidence:
        measures += [_labelled("confidence", "A"), _labelled("confidence", "B")]
    cards = []
    for p in chosen:
        q = partner[p.index]
        said = (_said(p, keys, "a"), _said(q, keys, "b"))
        first = tuple(Piece(reference, False) for reference in p.references[:1])
        values: list[float | None] = []
        for key in keys:
            values.append(rounded(_change(key, p, q)))
            values += [rounded(p.metrics.get(key)), rounded(q.metrics.get(key))]
        if has_confidence:
            values += [rounded(p.confidence), rounded(q.confidence)]
        picture = pictures.get(p.index) or earlier.get(p.image_id)
        cards.append(Card(p.image_id, picture, said, first, p.references[1:], values))
    return Gallery(cards, measures, note, shape_of(card.picture for card in cards))


def _said(prediction: Prediction, keys: Sequence[str], run: str) -> Said:
    aligned = align(prediction.text, prediction.references)
    return say(prediction, keys, aligned.caption if aligned else None, run)


def _measures(key: str) -> list[Measure]:
    gain = Measure(
        f"change_{key}",
        f"Change in {label(key)} (B − A)",
        better(key) == "lower",
        "A better first",
        "B better first",
    )
    return [gain, _labelled(key, "A"), _labelled(key, "B")]


def _labelled(key: str, run: str) -> Measure:
    plain = measure(key)
    return Measure(
        f"{key}_{run.lower()}", f"{plain.label}, {run}", plain.descending, plain.worst, plain.best
    )


def _change(key: str, a: Prediction, b: Prediction) -> float | None:
    if key not in a.metrics or key not in b.metrics:
        return None
    return b.metrics[key] - a.metrics[key]


def _histograms(a: Run, b: Run, keys: Sequence[str], names: tuple[str, str]) -> list[Histogram]:
    def values(run: Run, key: str) -> list[float]:
        if key == "confidence":
            return [p.confidence for p in run.predictions if p.confidence is not None]
        return [p.metrics[key] for p in run.predictions if key in p.metrics]

    charts = []
    for key in [*keys, "confidence"]:
        first, second = values(a, key), values(b, key)
        title = "Confidence (%)" if key == "confidence" else ""
        if first and second:
            charts.append(histogram(key, first, second, title=title, names=names))
    return [chart for chart in charts if chart]


def _language_rows(a: Run, b: Run) -> list[tuple[str, str, str]]:
    first, second = language_of(a.predictions), language_of(b.predictions)
    if not first or not second:
        return []
    return [
        (
            "Distinct captions",
            f"{first.distinct:,} ({first.distinct_share:.0f} %)",
            f"{second.distinct:,} ({second.distinct_share:.0f} %)",
        ),
        ("Different words used", f"{first.vocabulary:,}", f"{second.vocabulary:,}"),
        ("Words per caption", f"{first.mean_length:.1f}", f"{second.mean_length:.1f}"),
    ]


def _side_by_side(
    a: Sequence[tuple[str, str]], b: Sequence[tuple[str, str]]
) -> list[tuple[str, str, str]]:
    first, second = dict(a), dict(b)
    return [(k, first.get(k, "–"), second.get(k, "–")) for k in dict.fromkeys([*first, *second])]
