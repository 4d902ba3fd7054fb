"""One self-contained HTML page per run, and the pictures on it."""

from msa2net.report.html import write_report

__all__ = ["write_report"]
