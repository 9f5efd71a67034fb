"""The packages: what they say, and what `make package` has built when it runs these tests."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import tag_keras

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUILT = ROOT / os.environ.get("BUILT_PACKAGES", "not_built")
RELATIVE = re.compile(r"\]\((?!https?:)")
built = pytest.mark.skipif(not BUILT.exists(), reason="`make package` builds them")


def setup():
    spec = importlib.util.spec_from_file_location("setup_of_the_package", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_description_has_no_link_that_leads_nowhere():
    assert RELATIVE.search(README)
    text = setup().description(README, address="")
    assert not RELATIVE.search(text) and "![" not in text
    # The texts of links stay, and links to elsewhere.
    assert "Your own model has more inputs" in text and "(https://arxiv.org/abs/2109.04617)" in text


def test_with_an_address_images_and_links_lead_there():
    text = "![a b](docs/a.png) and [c](d.md#e), [f](https://g) and [h](#i)"
    assert setup().description(text, address="https://x/v1/") == (
        "![a b](https://x/v1/docs/a.png?raw=true) and [c](https://x/v1/d.md#e), [f](https://g) "
        "and [h](#i)"
    )


def test_the_version_is_the_same_everywhere():
    version = tag_keras.__version__
    assert re.match(
        rf"# Changelog\n+## {re.escape(version)} \(", (ROOT / "CHANGELOG.md").read_text()
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (version, "Apache-2.0")


def test_the_citation_has_what_its_format_demands():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert all({"given-names", "family-names"} == set(one) for one in paper["authors"])


def test_only_this_version_of_python_is_claimed_to_be_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pattern = r"Programming Language :: Python :: (3\.\d+)"
    claimed = re.findall(pattern, "\n".join(project["classifiers"]))
    assert claimed == [project["requires-python"].removeprefix(">=")]


def names_of_the_package():
    kinds = ("*.py", "*.pyi", "py.typed", "*.jinja")
    found = {path for kind in kinds for path in (ROOT / "tag_keras").rglob(kind)}
    return {path.relative_to(ROOT).as_posix() for path in found}


@built
def test_the_wheel_holds_the_package_and_nothing_else():
    (path,) = BUILT.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        text = wheel.read(metadata).decode()
        assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    assert names == names_of_the_package()
    assert len([name for name in names if name.endswith(".jinja")]) >= 3
    assert f"\nVersion: {tag_keras.__version__}\n" in text
    assert "\nDescription-Content-Type: text/markdown\n" in text and not RELATIVE.search(text)


@built
def test_the_source_package_holds_what_builds_it():
    (path,) = BUILT.glob("*.tar.gz")
    with tarfile.open(path) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert names_of_the_package() <= names
    needed = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert needed <= names
    outside = ("tests/", "benchmarks/", "docs/", "digits/", "celeba/", "taskonomy/")
    assert not [name for name in names if name.startswith(outside)]


@built
def test_the_installed_package_works_without_the_checkout(tmp_path):
    installed = BUILT / "installed"
    code = (
        "import tag_keras, tag_keras.report.pages as pages\n"
        "affinity = tag_keras.Affinity(['a', 'b'], [[0, 1], [1, 0]])\n"
        "print(tag_keras.select_groups(affinity, num_groups=1).groups)\n"
        "print(tag_keras.__file__, all(hasattr(tag_keras, name) for name in tag_keras.__all__))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.stdout.splitlines() == [
        "(('a', 'b'),)",
        f"{installed / 'tag_keras' / '__init__.py'} True",
    ], process.stderr
