"""Pages of HTML that need no other file, and the figures on them."""

import io
from pathlib import Path
from typing import Any

from tag_keras.utils import files

try:
    import jinja2
except ImportError as error:
    raise ImportError(
        'The report needs jinja2. Install it with: pip install "tag_keras[experiments]"'
    ) from error


def render(template: str, **values: Any) -> str:
    """A page out of one of the package's templates."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(**values)
    return page


def png(drawing: Any) -> bytes | None:
    """A figure, or the one that axes are in, as PNG; None for None."""
    if drawing is None:
        return None
    buffer = io.BytesIO()
    drawing.figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def write(path: Path, content: bytes | None) -> None:
    """Writes a file, atomically, or deletes it where there is nothing to write."""
    # A figure of an earlier report must not stand beside this one.
    if content is None:
        path.unlink(missing_ok=True)
        return
    with files.replacing(path) as partial:
        partial.write_bytes(content)
