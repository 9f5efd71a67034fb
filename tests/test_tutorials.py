"""The notebooks of docs/tutorials: their outputs are kept, and running them anew agrees."""

import os
import re
import sys
import tarfile
import zipfile

import nbclient
import nbformat
import notebooks
import pytest
from tutorials import package_data

PATHS = sorted(notebooks.TUTORIALS.glob("*.ipynb"))
LARGEST = 300_000
# Files that a notebook reads, as `package_data.read_file` is called.
READS = re.compile(r'read_file\("([^"]+)", "([^"]+)", "([^"]+)"\)')


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """The text that a cell shows: what it prints, and its value."""
    texts = [output.get("text") or output.data["text/plain"] for output in cell.outputs]
    return "".join(texts)


def tagged(notebook):
    return {
        cell.id: printed(cell)
        for cell in code_cells(notebook)
        if "same" in cell.metadata.get("tags", [])
    }


def faults(notebook):
    """What is wrong with the outputs of a notebook."""
    found = []
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != [*range(1, len(cells) + 1)]:
        found.append("the cells were not executed from top to bottom")
    for cell in cells:
        for output in cell.outputs:
            text = str(output)
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id} shows an error or a warning: {text[:500]}")
            if re.search(r"(?<![\w:/.<])/(home|root|tmp|work|usr|Users|opt)/|0x[0-9a-f]{6}", text):
                found.append(f"{cell.id} shows a path or an address of one machine: {text[:500]}")
    return found


def test_there_are_four():
    assert [path.stem for path in PATHS] == ["digits", "health", "recommender", "weather"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_outputs_are_kept(path):
    assert path.stat().st_size <= LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert faults(notebook) == []
    assert 15 <= len(notebook.cells) <= 30
    assert notebook.metadata == nbformat.from_dict(notebooks.METADATA)
    assert all({*cell.metadata} <= {"tags", "mystnb"} for cell in notebook.cells)
    headings = re.findall(r"^## (.*)$", "\n".join(cell.source for cell in notebook.cells), re.M)
    assert headings[-1] == "Did it pay, how sure?"
    assert len(tagged(notebook)) > 0 and all(tagged(notebook).values())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_pictures_are_described(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert cell.metadata["mystnb"]["image"]["alt"].endswith(".")


def test_faults_are_found():
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert faults(notebook) == []
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="UserWarning: careful"),
        nbformat.v4.new_output("stream", text="saved in /home/me/runs"),
    ]
    cell.execution_count = 3
    order, warning, path = faults(notebook)
    assert "top to bottom" in order and "careful" in warning and "/home/me" in path


def test_a_file_is_read_out_of_a_package(tmp_path, monkeypatch):
    monkeypatch.setenv("TAG_KERAS_CACHE", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "some-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some/data.csv", b"a,b")
    assert package_data.read_file("some", "1.2", "some/data.csv") == b"a,b"
    with tarfile.open(tmp_path / "other-3.tar.gz", "w:gz") as archive:
        archive.add(__file__, "other-3/other/data.py")
    assert b"def test_a_file_is_read" in package_data.read_file("other", "3", "other/data.py")


def test_a_package_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TAG_KERAS_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(package_data.NoPackageError, match=r"some 1.2 cannot be downloaded \(no"):
        package_data.read_file("some", "1.2", "data.csv")


def check_files(notebook):
    """Skips if a package cannot be had. CI has the registry, and fails."""
    for package, version, name in READS.findall("\n".join(cell.source for cell in notebook.cells)):
        try:
            package_data.read_file(package, version, name)
        except OSError as error:
            fail = pytest.fail if os.environ.get("CI") else pytest.skip
            fail(f"The notebook reads a file of a package: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_executing_it_anew_shows_what_the_text_says(path, tmp_path):
    kept = nbformat.read(path, as_version=4)
    check_files(kept)
    again = notebooks.execute(path, tmp_path)
    assert faults(again) == []
    assert tagged(again) == tagged(kept)


@pytest.mark.slow
def test_a_warning_in_a_cell_is_a_fault_and_an_error_stops(tmp_path):
    path = tmp_path / "small.ipynb"
    cells = [
        nbformat.v4.new_code_cell("import warnings, package_data, tag_keras\ntag_keras.__file__"),
        nbformat.v4.new_code_cell("warnings.warn('careful')"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    again = notebooks.execute(path, tmp_path)
    assert str(notebooks.ROOT) in printed(again.cells[0])
    assert "careful" in faults(again)[-1]
    cells[1].source = "1 / 0"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        notebooks.execute(path, tmp_path)
