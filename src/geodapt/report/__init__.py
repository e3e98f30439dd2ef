"""A run's report: a table for the terminal and one self-contained web page."""

from geodapt.report.page import write_report
from geodapt.report.table import print_table

__all__ = ["print_table", "write_report"]
