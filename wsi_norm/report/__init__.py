"""What happened: results per slide and per run, written for people and for programs."""

from wsi_norm.report.files import CSV_COLUMNS, profile_table, write_csv, write_json, write_report
from wsi_norm.report.html import write_html
from wsi_norm.report.results import RunSummary, SlideResult, Status

__all__ = [
    "CSV_COLUMNS",
    "RunSummary",
    "SlideResult",
    "Status",
    "profile_table",
    "write_csv",
    "write_html",
    "write_json",
    "write_report",
]
