"""Data frames of pandas, which is optional."""

from collections.abc import Mapping, Sequence
from typing import Any


def data_frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A `pandas.DataFrame` of these columns.

    Raises:
        ImportError: If there is no pandas; the message says what to install.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            'A DataFrame needs pandas. Install it with: pip install "tag_keras[tools]"'
        ) from error
    return pandas.DataFrame(dict(columns))
