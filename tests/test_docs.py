"""The pages of docs/: their code prints what they say, and every public name has a page."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from docs_pages import LISTED, PAGES, documented
from docstrings import argument_faults, markdown_to_rst

import tag_keras

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(python|text|bash)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
BLOCKS = {name: BLOCK.findall(text) for name, text in sorted(PAGES.items())}


def pages_with_python():
    """Those that load TensorFlow take some seconds."""
    for name, blocks in BLOCKS.items():
        code = "".join(text for language, text in blocks if language == "python")
        if code:
            slow = [pytest.mark.slow] if "import keras" in code else []
            yield pytest.param(name, marks=slow)


@pytest.mark.parametrize("page", list(pages_with_python()))
def test_the_python_of_a_page_prints_what_the_page_says(
    page, tmp_path, monkeypatch, capsys, request
):
    monkeypatch.chdir(tmp_path)
    if any("MirroredStrategy()" in text for _, text in BLOCKS[page]):
        # A second one in the process would get the first one's messages between replicas.
        import tensorflow as tf

        strategy = request.getfixturevalue("two_replicas")
        monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: strategy)
    names, printed = {}, None
    for language, text in BLOCKS[page]:
        if language == "python":
            assert not printed, f"The page does not show what is printed: {printed}"
            exec(compile(text, page, "exec"), names)
            printed = capsys.readouterr().out
        elif language == "text":
            assert text == printed
            printed = None
    assert not printed, f"The page does not show what is printed: {printed}"


def defined_flags():
    pattern = r'(?:DEFINE_\w+\(\s*|add_argument\(\s*|\bcount\()"(?:--)?(\w+)"'
    files = [path for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    return {"help"}.union(*(re.findall(pattern, path.read_text("utf-8")) for path in files))


def test_the_commands_of_the_pages_are_there():
    text = "\n".join(PAGES.values())
    targets = re.findall(r"^make (\w+)", text, flags=re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert targets and all(f"\n{target}: " in makefile for target in targets)
    modules = set(re.findall(r"python -m ([a-z]\w+(?:\.\w+)*)", text))
    assert modules and all(importlib.util.find_spec(module) for module in modules)
    flags = set(re.findall(r"[ `]--(\w+)", text)) - {"flagfile"}  # which is absl's own
    assert flags and flags <= defined_flags()
    for path in re.findall(r"--flagfile=(\S+)", text):
        assert (ROOT / path).exists()


def test_every_public_name_has_a_page():
    names = {name for name in tag_keras.__all__ if not inspect.ismodule(getattr(tag_keras, name))}
    assert names - set(LISTED) == set()
    assert len(LISTED) == len(set(LISTED))


@pytest.mark.parametrize("listed", LISTED)
def test_docstrings_name_all_arguments_and_no_others(listed):
    things = documented(listed)
    assert things[listed].__doc__
    faults = {name: argument_faults(thing) for name, thing in things.items()}
    assert not any(faults.values()), faults


def test_arguments_without_a_docstring_are_found():
    def function(first, second, *args, third=None, **kwargs):
        """Does something.

        Args:
            first: The first:
                one of two.
            *args: More.
            fourth: Not there.

        Returns:
            third: Which is no argument.
        """

    assert argument_faults(function) == [
        "`kwargs` is not documented.",
        "`second` is not documented.",
        "`third` is not documented.",
        "there is no argument `fourth`.",
    ]


def test_docstrings_become_restructured_text():
    markdown = """By arXiv 2109.04617, `a` and `<task>_loss`:

    a_i |b|

Args:
    a: An `x + 1`.

        More.

    ```python
    f(a)
    ```
"""
    assert (
        markdown_to_rst(markdown)
        == """By `arXiv 2109.04617 <https://arxiv.org/abs/2109.04617>`__, `a` and ``<task>_loss``:

.. code-block:: text

    a_i |b|

Args:
    a: An ``x + 1``.

        More.

    .. code-block:: python

        f(a)
"""
    )
