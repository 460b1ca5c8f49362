"""The pictures of docs/benchmarks.md, as SVG; each holds a digest of the figures that it shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from page import digest, ratios_of

mpl.use("svg")
from matplotlib import pyplot as plt

COLOURS = {"torch": "#d1495b", "flax": "#2e6f95", "jax": "#2e6f95"}
OURS, MISSED = "#2e6f95", "#d1495b"


def draw(results: Mapping[str, Any], ratios: Sequence[str], folder: Path) -> list[str]:
    """Draw what is measured; returns the names of the files."""
    settings = {
        "svg.hashsalt": "captionkit", "svg.fonttype": "none", "font.size": 9,
        "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    drawn = []
    with mpl.rc_context(settings):
        for name, (values, picture) in pictures(results, ratios).items():
            figure = picture(values)
            about = {"Date": None, "Creator": None, "Description": f"figures {digest(values)}"}
            figure.savefig(folder / name, format="svg", bbox_inches="tight", metadata=about)
            plt.close(figure)
            drawn.append(name)
    return drawn


def pictures(results: Mapping[str, Any], ratios: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """By file name what is shown and the function that draws it."""
    shown: dict[str, tuple[Any, Any]] = {}
    if ratios:
        rows = [
            (label(one), one["ratio"], ratios_of(one), one["target"])
            for one in (results[name] for name in ratios)
        ]
        shown["bench_ratios.svg"] = (rows, ratio_picture)
    if "growth" in results:
        shown["bench_growth.svg"] = (results["growth"]["lines"], growth_picture)
    if "limits" in results:
        shares = {
            name: (one["share"], one["of"]) for name, one in results["limits"]["reached"].items()
        }
        shown["bench_limits.svg"] = (shares, limits_picture)
    return shown


def label(result: Mapping[str, Any]) -> str:
    """What was compared; several comparisons of one title differ in who took part."""
    ours = list(result["seconds"])[-1]
    return result["title"] if ours == "captionkit" else f"{result['title']}: {ours}"


def ratio_picture(rows: Sequence[tuple[str, float, Sequence[float], float]]) -> Any:
    """A row a comparison: the median ratio, its spread, and the target as a stroke."""
    figure, axes = plt.subplots(figsize=(7.5, 0.29 * len(rows) + 1.0))
    for row, (_, ratio, repeats, target) in enumerate(rows):
        colour = OURS if ratio >= target else MISSED
        axes.plot([min(repeats), max(repeats)], [row, row], color=colour, linewidth=1.5)
        axes.plot(ratio, row, "o", color=colour, markersize=5)
        axes.plot([target, target], [row - 0.35, row + 0.35], color="black", linewidth=1.5)
    axes.set_yticks(range(len(rows)), [title for title, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    ticks = [t for t in (0.5, 1, 2, 4, 8, 16, 32) if t <= 1.5 * max(max(r) for _, _, r, _ in rows)]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(
        "times as fast as the peer: median, least to most; stroke: target (red: not reached)"
    )
    return figure


def growth_picture(lines: Mapping[str, Any]) -> Any:
    """A panel a line: seconds by what grows, both logarithmic; dotted: in proportion to it."""
    rows = -(-len(lines) // 2)
    figure, grid = plt.subplots(rows, 2, figsize=(8, 2.3 * rows), squeeze=False)
    for axes, line in zip(grid.flat, lines.values(), strict=False):
        values = line["values"]
        for side, repeats in line["seconds"].items():
            medians = [statistics.median(some) for some in repeats]
            axes.plot(values, medians, "o-", color=COLOURS[side], label=side, markersize=4)
            axes.fill_between(
                values, [min(s) for s in repeats], [max(s) for s in repeats],
                color=COLOURS[side], alpha=0.2, linewidth=0,
            )  # fmt: skip
            ideal = [medians[0] * value / values[0] for value in values]
            axes.plot(values, ideal, ":", color=COLOURS[side], linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(values, [str(value) for value in values])
        axes.set_title(line["what"], fontsize=8, loc="left")
        axes.set_ylabel("seconds")
        axes.legend(frameon=False, fontsize=8)
    for axes in list(grid.flat)[len(lines) :]:
        axes.remove()
    figure.tight_layout()
    return figure


def limits_picture(shares: Mapping[str, tuple[float, str]]) -> Any:
    """A bar each: the share of the machine's own limit."""
    figure, axes = plt.subplots(figsize=(6.5, 0.32 * len(shares) + 0.8))
    names = list(shares)
    for row, name in enumerate(names):
        share, of = shares[name]
        axes.barh(row, 100 * share, color=OURS, height=0.6)
        axes.text(100 * share + 1, row, f"{share:.0%} of {of}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(100, color="black", linewidth=1)
    axes.set_xlim(0, max(125, 120 * max(share for share, _ in shares.values())))
    axes.set_xlabel("percent of the limit")
    return figure
