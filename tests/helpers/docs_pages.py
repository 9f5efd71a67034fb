"""The pages of docs/, and the names of which docs/api/ makes pages out of docstrings."""

import inspect
import operator
import re
from pathlib import Path

import tag_keras

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in DOCS.rglob("*.md")}
# Names below tag_keras: those in the lists of `autosummary`.
LISTED = [
    name
    for page, text in PAGES.items()
    if page.startswith("api/")
    for names in re.findall(r"autosummary::\n(?: +:.*\n)+\n((?: +[\w.]+\n)+)", text)
    for name in names.split()
]


# Inherited methods that a page shows, too: see docs/_templates/autosummary/model.rst.
INHERITED = {"MultiTaskModel": ("export", "from_functional")}


def documented(name):
    """What the page of a listed name documents: the object, and methods of a class, by name."""
    thing = operator.attrgetter(name)(tag_keras)
    methods = [*vars(thing), *INHERITED.get(name, ())] if inspect.isclass(thing) else []
    public = {key: getattr(thing, key) for key in methods if not key.startswith("_")}
    return {name: thing} | {
        f"{name}.{key}": value for key, value in public.items() if inspect.isroutine(value)
    }
