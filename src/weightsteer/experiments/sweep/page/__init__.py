"""The page of a sweep: one offline HTML file, its charts, and every table as CSV."""

from weightsteer.experiments.sweep.page.write import write_report

__all__ = ["write_report"]
