"""What a run leaves for people: one offline HTML page, charts for papers, and the summary as CSV."""

from weightsteer.report.console import summary_table
from weightsteer.report.write import write_report

__all__ = ["summary_table", "write_report"]
