"""Executes the notebooks of docs/tutorials and keeps their outputs: `python -m docs.notebooks`.

`python -m docs.notebooks digits` executes one of them.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

# Before a notebook does it: the first use of Matplotlib makes a cache of fonts, and says so.
import matplotlib.font_manager  # noqa: F401
import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
# Nothing that differs between two machines.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What TensorFlow's C++ code writes to the terminal is no output of a cell.
_KERNEL = ["--IPKernelApp.capture_fd_output=False"]


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Executes a copy of a notebook.

    Args:
        path: File of the notebook.
        folder: Folder to run in, which gets the modules beside the notebook.

    Returns:
        The notebook with its outputs.

    Raises:
        CellExecutionError: If a cell fails; the message shows the cell and the error.
    """
    for module in TUTORIALS.glob("*.py"):
        shutil.copy(module, folder)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=900,
        startup_timeout=300,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=_KERNEL,
        resources={"metadata": {"path": str(folder)}},
    )
    # The package of this folder, installed or not.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client.execute(env={**os.environ, **quiet})
    # The kernel has put its version there.
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in TUTORIALS.glob("*.ipynb"))
    for name in names:
        path = TUTORIALS / f"{name}.ipynb"
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder)), path)
        print(path)


if __name__ == "__main__":
    main()
