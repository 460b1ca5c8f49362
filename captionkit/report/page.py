"""The report of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captionkit.report.curves import evaluation_table, run_curves, sparkline
from captionkit.report.facts import (
    changed_rows,
    lede,
    recipe_groups,
    run_rows,
    version_rows,
    warnings_of,
)
from captionkit.report.gallery import build_gallery, choose, keys_of
from captionkit.report.histograms import Histogram, histogram
from captionkit.report.language import Language, language_of
from captionkit.report.measures import direction, in_order, label, main_measure, meaning, number
from captionkit.report.render import render_page
from captionkit.report.run import Prediction, Run, read_run
from captionkit.report.thumbnails import Pictures, earlier_thumbnails, thumbnails
from captionkit.report.words import Piece, align

_STRIP = 6  # images shown before and after training


def write_report(
    folder: Path,
    images: Pictures | None = None,
    title: str | None = None,
    *,
    limit: int = 2000,
) -> Path:
    """Write report.html into a run's folder, one file that needs no network, and return its path.

    `folder` holds recipe.yaml, history.jsonl, metrics.json, predictions.jsonl and run.json, any of
    which may be missing. `images(i)` gives the picture of row i of predictions.jsonl, or None;
    without it, the pictures of an earlier report are kept. Of more than `limit` images the gallery
    shows the worst, the best and a sample. Raises DataError where the folder holds no run, and
    OutputError where the page cannot be written.
    """
    run = read_run(Path(folder))
    page = run.folder / "report.html"
    keys = keys_of(run.predictions)
    training = run.recipe.get("training")
    wanted = training.get("best_metric") if isinstance(training, dict) else None
    main = main_measure(keys, wanted)
    if main:
        keys = [main, *(key for key in keys if key != main)]
    shown, note = choose(run.predictions, main, limit)
    pictures = thumbnails(images, shown)
    earlier = earlier_thumbnails([page]) if images is None else {}
    if images is not None and (lost := len(shown) - len(pictures)):
        run.problems.append(f"{lost:,} of {len(shown):,} pictures could not be had for this page.")
    language = language_of(run.predictions)
    gallery = build_gallery(shown, note, keys, pictures, earlier)
    context = {
        "title": title or run.title,
        "kind": "Evaluation" if run.facts.get("command") == "evaluate" else "Fine-tuning",
        "lede": [run.title, *lede(run)] if title not in (None, run.title) else lede(run),
        "warnings": warnings_of(run, language),
        "problems": run.problems,
        "headline": _headline(run),
        "strip": _before_and_after(run.predictions, pictures, earlier),
        "gallery": gallery,
        "histograms": _histograms(run.predictions, keys),
        "curves": run_curves(run.history),
        "table": evaluation_table(run.history),
        "language": language,
        "lengths": _lengths(language),
        "run_rows": run_rows(run),
        "version_rows": version_rows(run),
        "changed_rows": changed_rows(run.recipe),
        "recipe": recipe_groups(run.recipe),
    }
    return render_page("report.html.j2", page, context)


def _headline(run: Run) -> list[dict[str, str]]:
    cards = []
    for key in in_order(run.metrics):
        path, story = sparkline(run.history, key)
        cards.append(
            {
                "label": label(key),
                "value": number(key, run.metrics[key]),
                "direction": direction(key),
                "meaning": meaning(key),
                "path": path,
                "story": story,
            }
        )
    return cards


def _before_and_after(
    predictions: Sequence[Prediction], pictures: dict[int, str], earlier: Any
) -> list[dict[str, Any]]:
    """The first images that the untrained model captioned as well."""
    rows = []
    for p in [p for p in predictions if p.before is not None][:_STRIP]:
        aligned = align(p.text, p.references)
        rows.append(
            {
                "picture": pictures.get(p.index) or earlier.get(p.image_id),
                "before": p.before,
                "after": p.text,
                "pieces": aligned.caption if aligned else (Piece(p.text, False),),
                "reference": p.references[aligned.index] if aligned else "",
            }
        )
    return rows


def _histograms(predictions: Sequence[Prediction], keys: Sequence[str]) -> list[Histogram]:
    charts = [
        histogram(key, [p.metrics[key] for p in predictions if key in p.metrics]) for key in keys
    ]
    confidence = [p.confidence for p in predictions if p.confidence is not None]
    charts.append(histogram("confidence", confidence, title="Confidence (%)"))
    return [chart for chart in charts if chart]


def _lengths(language: Language | None) -> Histogram | None:
    if language is None:
        return None
    return histogram(
        "length",
        language.lengths,
        language.reference_lengths,
        title="Words per caption",
        names=("captions", "references"),
        unit="captions",
        whole=True,
    )
