"""The report: one HTML page that says what was chosen, whether it paid, and how far to trust it."""

from tag_keras.report.report import other_groups, write_report

__all__ = ["other_groups", "write_report"]
