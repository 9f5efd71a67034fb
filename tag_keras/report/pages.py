"""Pages of HTML that need no other file."""

from pathlib import Path
from typing import Any

from tag_keras.report.heat_maps import STEPS
from tag_keras.utils import files
from tag_keras.utils.colours import heat_colours

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
    environment.globals.update(heat_colours=heat_colours, heat_steps=STEPS)
    page: str = environment.get_template(template).render(**values)
    return page


def write(path: Path, content: str) -> None:
    """Writes a file, atomically."""
    with files.replacing(path) as partial:
        partial.write_text(content, "utf-8")
