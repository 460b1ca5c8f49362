"""docs/benchmarks.md and its pictures, made of benchmarks/results/ and page.md.j2.

    python benchmarks/page.py

The figures come from the results, so none is edited by hand; what is said around them stands in
page.md.j2. A result that is not there yet is named as not measured, and one that the page does not
mention is added at its end.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, TEMPLATE = HERE / "results", HERE / "page.md.j2"
PAGE = HERE.parent / "docs" / "benchmarks.md"
IMAGES = HERE.parent / "docs" / "images"


def main() -> None:
    from plots import draw

    results = read_results(RESULTS)
    text, ratios = build(results)
    PAGE.write_text(text, encoding="utf-8")
    for name in draw(results, ratios, IMAGES):
        print(f"{IMAGES.name}/{name}")
    print(f"{PAGE.name}: {len(results)} results")


def read_results(folder: Path) -> dict[str, Any]:
    """The results by name."""
    files = sorted(folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def build(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The page, and the names of the comparisons in their order on it."""
    from jinja2 import Environment, StrictUndefined

    page = Page(results)
    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    functions = {name: getattr(page, name) for name in dir(page) if not name.startswith("_")}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"), functions)
    # what is not measured leaves empty paragraphs
    return re.sub(r"\n{3,}", "\n\n", template.render()), page.ratios


def digest(values: Any) -> str:
    """Of what a picture shows: it stands in the picture, for a test to compare."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


class Page:
    """What the template calls, and what it has called for."""

    def __init__(self, results: Mapping[str, Any]):
        self.results = results
        self.ratios: list[str] = []
        self._used: set[str] = set()

    def compared(self, *rows: str) -> str:
        """A table of comparisons; each row is "bench_name: result result ..."."""
        lines, missing = [], []
        for row in rows:
            bench, _, names = row.partition(":")
            for name in names.split():
                if name in self.results:
                    lines.append(self._comparison(name, bench))
                else:
                    missing.append(name)
        head = (
            "| what | peer | ours | ratio (least to most) | target | date |\n" + "| --- " * 6 + "|"
        )
        table = "\n".join([head, *lines]) if lines else ""
        absent = f"Not measured yet: {', '.join(f'`{name}`' for name in missing)}."
        return "\n\n".join([part for part in (table, absent if missing else "") if part])

    def at(self, path: str, form: str = "") -> str:
        """One figure, "result/key/key", formatted; "–" where it is not measured."""
        name, *keys = path.split("/")
        self._used.add(name)
        value = self.results.get(name)
        for key in keys:
            if value is None:
                return "–"
            value = value[int(key) if isinstance(value, list) else key]
        if isinstance(value, list):
            value = statistics.median(value)
        return "–" if value is None else format(value, form)

    def rows(self, path: str) -> list[Any]:
        """The list or the items under a path; empty where it is not measured."""
        name, *keys = path.split("/")
        self._used.add(name)
        value = self.results.get(name, {})
        for key in keys:
            value = value.get(key, {})
        return list(value.items() if isinstance(value, dict) else value)

    def date(self, name: str) -> str:
        """When a result was measured."""
        return self.at(f"{name}/date")

    def growth(self) -> str:
        """A table a line of bench_growth: medians by what grows."""
        tables = []
        for line in dict(self.rows("growth/lines")).values():
            head = f"| {line['what']} | {' | '.join(map(str, line['values']))} |"
            lines = [head, "| --- " * (len(line["values"]) + 1) + "|"]
            for side, repeats in line["seconds"].items():
                medians = (seconds_text(statistics.median(some)) for some in repeats)
                lines.append(f"| {side} | {' | '.join(medians)} |")
            tables.append("\n".join(lines))
        return "\n\n".join(tables) or "Not measured yet."

    def limits(self) -> str:
        """What bench_limits found: the limits, and what share of them is reached."""
        limits = dict(self.rows("limits/limits"))
        if not limits:
            return "Not measured yet."
        lines = ["| what | reached | limit | share |", "| --- " * 4 + "|"]
        for name, one in self.rows("limits/reached"):
            limit, unit = limits[one["of"]]["value"], one["unit"]
            lines.append(
                f"| {name} | {one['value']:,.1f} {unit} | {limit:,.1f} {unit} ({one['of']}) "
                f"| {one['share']:.0%} |"
            )
        return "\n".join(lines)

    def picture(self, name: str, alt: str, *results: str) -> str:
        """An image of the page, where what it shows is measured."""
        there = all(result in self.results for result in results)
        return f"![{alt}](images/{name})" if there else ""

    def others(self) -> str:
        """The results that nothing above has called for."""
        left = [name for name in self.results if name not in self._used]
        compared = [name for name in left if "ratio" in self.results[name]]
        parts = [self.compared("others: " + " ".join(compared))] if compared else []
        parts += [
            f"`benchmarks/results/{name}.json` ({self.date(name)}): "
            f"{self.results[name].get('title', name)}."
            for name in left
            if name not in compared
        ]
        return "\n\n".join(["## Others", *parts]) if parts else ""

    def machines(self) -> str:
        """With what, and on what, the results were measured."""
        found: dict[str, list[str]] = {}
        for one in self.results.values():
            found.setdefault(_about(one), []).append(one["date"])
        return "\n".join(f"- {_dates(dates)}: {about}" for about, dates in sorted(found.items()))

    def _comparison(self, name: str, bench: str) -> str:
        one = self.results[name]
        self._used.add(name)
        self.ratios.append(name)
        (peer, theirs), *_, (who, ours) = one["seconds"].items()
        ratios = ratios_of(one)
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else " (once)"
        missed = "" if one["ratio"] >= one["target"] else ", not reached"
        sides = [
            f"{label}: {seconds_text(statistics.median(some))}"
            for label, some in ((peer, theirs), (who, ours))
        ]
        what = one["title"] if bench == "others" else f"{one['title']} (`{bench}`)"
        return (
            f"| {what} | {sides[0]} | {sides[1]} | {one['ratio']:.2f}x{spread} "
            f"| {one['target']:g}x{missed} | {one['date']} |"
        )


def ratios_of(result: Mapping[str, Any]) -> list[float]:
    """Those of neighbouring repeats."""
    peer, *_, ours = result["seconds"].values()
    return [a / b for a, b in zip(peer, ours, strict=True)]


def seconds_text(seconds: float) -> str:
    """Three digits, as seconds or milliseconds."""
    if seconds < 0.1:
        return f"{seconds * 1000:.3g} ms"
    digits = 3 if seconds < 1 else max(0, 3 - len(str(int(seconds))))
    return f"{seconds:.{digits}f} s"


def _about(result: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "captionkit")
    cores = f", {result['cores']} cores" if result.get("cores") else ""
    processor = f" ({result['processor']}{cores})" if result.get("processor") else ""
    return f"{result['machine']}{processor}, Python {result['python']}, {versions}"


def _dates(dates: list[str]) -> str:
    few = sorted(set(dates))
    return few[0] if len(few) == 1 else f"{few[0]} to {few[-1]}"


if __name__ == "__main__":
    main()
