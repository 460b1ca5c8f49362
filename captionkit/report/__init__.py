"""The page that a run ends with: curves, scores, and every validation image with its caption."""

from captionkit.report.compare import compare_runs
from captionkit.report.grid import write_grid
from captionkit.report.page import write_report

__all__ = ["write_report", "compare_runs", "write_grid"]
