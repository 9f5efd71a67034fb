"""The report: one HTML page that says what was chosen, whether it paid, and how far to trust it.

- `report` writes the page: `tables` and `plots` give it numbers and figures of the affinities,
  `grouping_plots` figures of the groups, and `pages` fills the templates.
"""

from tag_keras.report.report import other_groups, write_report

__all__ = ["other_groups", "write_report"]
