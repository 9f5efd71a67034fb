"""Docstrings for Sphinx: Markdown as in Keras becomes reStructuredText, and arguments are checked.

An extension for Sphinx of this project alone. napoleon, which Sphinx brings, reads the sections.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

from sphinx.util import logging

LOGGER = logging.getLogger(__name__)

FENCE = re.compile(r"^( *)```(\w+)\n(.*?)\n *```$", flags=re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)    [^\n]+(?:\n+    [^\n]+)*")
BACKTICKS = re.compile(r"(?<!`)`([^`]+)`(?!`)")
SECTION = re.compile(r"^(?=[A-Z][a-z ]+:$)", flags=re.MULTILINE)
PAPER = re.compile(r"\barXiv (\d{4}\.\d{5})")
ARGUMENT = re.compile(r"^    (?:\*{0,2})(\w+): ", flags=re.MULTILINE)


def argument_faults(function: Callable[..., Any]) -> list[str]:
    """Where the docstring of a function or a class differs from its signature.

    Args:
        function: Function, method or class. The docstring of a class documents its `__init__`.

    Returns:
        A sentence for each argument that is not documented, or does not exist. None for a function
        that has no docstring of its own, as its base class documents it, and for an exception.
    """
    is_exception = inspect.isclass(function) and issubclass(function, Exception)
    if not function.__doc__ or is_exception:
        return []
    arguments = set(inspect.signature(function).parameters) - {"self", "cls"}
    sections = SECTION.split(inspect.cleandoc(function.__doc__))
    (text,) = [section for section in sections if section.startswith("Args:")] or [""]
    documented = set(ARGUMENT.findall(text))
    missing = [f"`{name}` is not documented." for name in sorted(arguments - documented)]
    return missing + [f"there is no argument `{name}`." for name in sorted(documented - arguments)]


def markdown_to_rst(text: str) -> str:
    """Writes code in fences, in backticks or indented as reStructuredText has it, links papers."""
    prose, *sections = SECTION.split(text)
    prose = INDENTED.sub(lambda code: f".. code-block:: text\n\n{code[0]}", prose)
    text = FENCE.sub(_code_block, "".join([prose, *sections]))
    text = BACKTICKS.sub(_reference_or_code, text)
    return PAPER.sub(r"`arXiv \1 <https://arxiv.org/abs/\1>`__", text)


def _code_block(fence: re.Match[str]) -> str:
    indent, language, code = fence.groups()
    code = "\n".join(f"    {line}".rstrip() for line in code.split("\n"))
    return f"{indent}.. code-block:: {language}\n\n{code}"


def _reference_or_code(backticks: re.Match[str]) -> str:
    return backticks[0] if re.fullmatch(r"[\w.]+", backticks[1]) else f"`{backticks[0]}`"


def process_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    if callable(obj):
        for fault in argument_faults(obj):
            LOGGER.warning("The docstring of %s: %s", name, fault)
    lines[:] = markdown_to_rst("\n".join(lines)).split("\n")


def class_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str, None] | None:
    """The arguments of `__init__`, where Sphinx takes the `*args` of Keras' `__new__`."""
    if what != "class":
        return None
    parameters = inspect.signature(obj).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare)), None


def setup(app: Any) -> dict[str, bool]:
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-process-signature", class_signature)
    return {"parallel_read_safe": True}
