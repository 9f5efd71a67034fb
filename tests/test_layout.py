"""The rooms of the package: which room may import which, and what each may hold.

A room is a folder of tag_keras/, with all below it, or a file at its top.
"""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "tag_keras"
APPLICATIONS = ("digits", "celeba", "taskonomy", "benchmarks", "tests")

# By room, from the ground up: the rooms that it may import, each of which stands above it here.
MAY_IMPORT = {
    "utils": (),
    "backend": (),
    "affinity": ("utils",),
    "results": ("utils",),
    "loss_weighting": ("backend", "utils"),
    "estimators": ("affinity", "backend", "utils"),
    "multitask": ("loss_weighting", "backend", "utils"),
    "selection": ("affinity", "results", "utils"),
    "decision": ("selection", "affinity", "results", "utils"),
    "network_selection": ("selection", "affinity", "utils"),
    "gradient_methods": ("multitask", "loss_weighting", "affinity", "backend", "utils"),
    "train_step": ("estimators", "multitask", "loss_weighting", "backend"),
    "model": (
        *("train_step", "estimators", "gradient_methods", "multitask", "loss_weighting"),
        *("affinity", "backend"),
    ),
    "group_prediction": ("model", "loss_weighting", "decision", "selection", "utils"),
    "grouped_model": ("multitask", "selection", "backend"),
    "networks": ("model", "multitask", "backend", "utils"),
    "layers": ("networks",),
    "saved_classes": (
        *("grouped_model", "networks", "model", "gradient_methods", "estimators"),
        "loss_weighting",
    ),
    "comparison": ("decision", "selection", "affinity", "results", "utils"),
    "report": ("comparison", "decision", "selection", "affinity", "results", "utils"),
    "plots": ("report", "comparison", "selection", "affinity", "results", "utils"),
    "sweep": (
        *("saved_classes", "grouped_model", "model", "multitask", "selection", "results"),
        *("estimators", "backend", "utils"),
    ),
    "study": (
        *("sweep", "report", "decision", "selection", "model", "gradient_methods"),
        "loss_weighting",
        *("estimators", "affinity", "results", "utils"),
    ),
    "experiment": (
        *("study", "sweep", "report", "comparison", "decision", "selection", "grouped_model"),
        *("model", "estimators", "affinity", "results", "utils"),
    ),
}
# Selecting groups and reading results must be quick, and possible where there is no TensorFlow.
NUMPY_ONLY = (
    "utils",
    "affinity",
    "results",
    "selection",
    "decision",
    "network_selection",
    "comparison",
)
# By library, the only files that may import it: the library itself does without.
OPTIONAL = {
    "matplotlib": {
        *("report/plots.py", "report/grouping_plots.py", "plots.py"),
    },
    "jinja2": {"report/pages.py"},
    "pandas": {"utils/frames.py"},
    "tensorboard": {"report/affinity_logger.py"},
    "ray": {"sweep/ray_runner.py"},
    "sklearn": {"gradient_methods/selective_updates/clustering.py"},
}
# Files that define flags or run a command.
COMMANDS = {
    *("network_selection.py", "study/command.py", "study/flags.py", "study/from_flags.py"),
}
MOST_FILES = 20

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
INSIDE = [name for name in FILES if name != "__init__.py"]


def read(name):
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def room_of(name):
    return name.partition("/")[0].removesuffix(".py")


def imports(tree):
    """Every import in a file, also those inside functions, as dotted names.

    `from tag_keras import results` gives `tag_keras.results`, `from tag_keras.utils.tasks import
    check` gives `tag_keras.utils.tasks.check`.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: write the import with its full name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def libraries(tree):
    return {name.partition(".")[0] for name in imports(tree)}


def imported_rooms(tree):
    """Second parts of the names that begin with the package; "" for the package itself."""
    names = [name.split(".") for name in imports(tree)]
    return {(*parts, "")[1] for parts in names if parts[0] == "tag_keras"}


def imported_files(tree):
    """The files of the package that a file imports."""
    found = set()
    for name in imports(tree):
        parts = name.split(".")[1:] if name.startswith("tag_keras.") else []
        # The last part may be a module, or what a module defines.
        for path in ("/".join(parts), "/".join(parts[:-1])):
            files = {f"{path}.py", f"{path}/__init__.py"}.intersection(INSIDE)
            found |= files
            if files:
                break
    return found


def test_the_helpers_see_every_way_to_import():
    code = "import a.b as c, d\nfrom e.f import g\ndef h():\n    from tag_keras import i\n"
    code += "    import tag_keras.j.k\n    import tag_keras\n    from tag_keras.l import m\n"
    tree = ast.parse(code)
    assert libraries(tree) == {"a", "d", "e", "tag_keras"}
    assert imported_rooms(tree) == {"i", "j", "l", ""}
    with pytest.raises(AssertionError, match="line 1: write the import with its full name"):
        imports(ast.parse("from . import files"))
    tree = ast.parse("from tag_keras.utils import files\nfrom tag_keras.results import Row")
    assert imported_files(tree) == {"utils/files.py", "results.py"}


def test_every_room_has_its_row():
    assert set(MAY_IMPORT) == {room_of(name) for name in INSIDE}, "give a new room its row"


def test_the_rows_allow_no_circle():
    above = []
    for room, allowed in MAY_IMPORT.items():
        assert set(allowed) <= set(above), f"{room} stands above what it may import"
        above.append(room)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_its_row_allows(room):
    found = set()
    for name in INSIDE:
        if room_of(name) == room:
            others = imported_rooms(read(name)) - {room}
            # A name that is no room would come through __init__.py, which has no row.
            assert others <= set(MAY_IMPORT[room]), name
            found |= others
    assert found == set(MAY_IMPORT[room]), "take out of the row what is not imported"


def test_no_file_imports_itself_by_way_of_others():
    left = {name: imported_files(read(name)) - {name} for name in INSIDE}
    while left:
        free = [name for name, others in left.items() if not others.intersection(left)]
        assert free, f"these files import each other: {sorted(left)}"
        for name in free:
            del left[name]


def test_no_folder_is_too_full():
    folders = {path.parent for path in (PACKAGE / name for name in FILES)}
    assert all(len([*folder.glob("*.py")]) <= MOST_FILES for folder in folders)
    assert len([*PACKAGE.glob("*.py")]) <= 12


@pytest.mark.parametrize("name", FILES)
def test_the_package_never_imports_what_is_built_on_it(name):
    assert not libraries(read(name)).intersection(APPLICATIONS)


@pytest.mark.parametrize("library", sorted(OPTIONAL))
def test_optional_libraries_are_imported_where_they_are_needed_only(library):
    users = {name for name in FILES if library in libraries(read(name))}
    assert users <= OPTIONAL[library]
    assert users, f"nothing imports {library}: take it out of OPTIONAL"


@pytest.mark.parametrize("name", [name for name in INSIDE if room_of(name) in NUMPY_ONLY])
def test_rooms_without_tensorflow_import_none_that_needs_it(name):
    tree = read(name)
    assert not libraries(tree) & {"keras", "tensorflow"}
    assert imported_rooms(tree) <= set(NUMPY_ONLY)


def test_private_names_of_keras_and_tensorflow_are_used_in_the_backend_only():
    trees = {name: read(name) for name in FILES}
    own = {"_replace"}  # A method of every named tuple.
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                own.add(node.target.id)
    used = {
        (name, node.attr)
        for name, tree in trees.items()
        if room_of(name) != "backend"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and ast.unparse(node.value) != "os"
    }
    assert {one for one in used if one[1] not in own} == set()


def test_the_package_itself_imports_only_the_standard_library_and_what_loads_it():
    found = libraries(read("__init__.py"))
    assert not found & {"numpy", "scipy", "tensorflow", "keras", "tag_keras"}


@pytest.mark.parametrize("name", FILES)
def test_errors_are_raised_and_not_asserted(name):
    # `python -O` takes assertions out.
    lines = [node.lineno for node in ast.walk(read(name)) if isinstance(node, ast.Assert)]
    assert lines == []


@pytest.mark.parametrize("name", FILES)
def test_flags_are_known_inside_the_functions_of_the_command_only(name):
    tree = read(name)
    if name in COMMANDS:
        assert "absl" in libraries(tree)
        functions = (ast.FunctionDef, ast.ClassDef)
        tree = ast.Module([node for node in tree.body if not isinstance(node, functions)], [])
    assert "absl" not in libraries(tree)


@pytest.mark.parametrize("application", ["digits", "celeba", "taskonomy"])
def test_flags_of_an_application_live_in_its_command(application):
    for path in (ROOT / application).glob("*.py"):
        if path.name != "train.py":
            assert "absl" not in libraries(ast.parse(path.read_text(encoding="utf-8"))), path.name
