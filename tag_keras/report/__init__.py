"""The report: one HTML page that says what was chosen, whether it paid, and how far to trust it.

`affinity_logger` tells of a training while it runs. It and the figures do without what pages need.
"""

from typing import Any

__all__ = ["other_groups", "write_report"]


def __getattr__(name: str) -> Any:
    # Loaded at first use, because a page needs Jinja.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tag_keras.report import report

    return getattr(report, name)
