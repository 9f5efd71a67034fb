"""All but the description is in pyproject.toml. The description is README as it works elsewhere."""

import re
from pathlib import Path

import setuptools

# Where the files of this version are on the web, such as https://HOST/PATH/blob/v0.2.0/.
ADDRESS = ""


def description(readme: str, address: str = ADDRESS) -> str:
    """README for a page of a package index, on which relative images and links lead nowhere.

    With an address, they lead there. Without, images go, and of links the text stays.
    """

    def absolute(match: re.Match[str]) -> str:
        image, text, path = match.groups()
        if address:
            return f"{image}[{text}]({address}{path}{'?raw=true' * bool(image)})"
        return "" if image else text

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", absolute, readme)


if __name__ == "__main__":
    setuptools.setup(
        long_description=description(Path("README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
