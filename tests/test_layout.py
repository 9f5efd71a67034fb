"""The floors of the package: a file imports only files of lower floors."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "tag_keras"
APPLICATIONS = ("digits", "celeba", "taskonomy", "benchmarks", "tests")

FLOORS = {
    "arrays": 0,
    "checks": 0,
    "child_processes": 0,
    "compiled_methods": 0,
    "epochs": 0,
    "files": 0,
    "machine_shares": 0,
    "missing_labels": 0,
    "multi_worker": 0,
    "network_files": 0,
    "network_program": 0,
    "optimizers": 0,
    "pcgrad": 0,
    "precision": 0,
    "progress": 0,
    "proximal_affinity": 0,
    "replicas": 0,
    "replication": 0,
    "selection_problem": 0,
    "selection_solver": 0,
    "shared_variables": 0,
    "task_clustering": 0,
    "tasks": 0,
    "text_table": 0,
    "upgrad": 0,
    "wording": 0,
    "adashare_policy": 1,
    "affinity": 1,
    "datasets": 1,
    "gradients": 1,
    "grouping": 1,
    "held_out": 1,
    "loss_sums": 1,
    "network_reduction": 1,
    "pages": 1,
    "resnet": 1,
    "results": 1,
    "selection_cover": 1,
    "selection_pricing": 1,
    "selection_search": 1,
    "selection_shares": 1,
    "settings": 1,
    "strategy": 1,
    "task_dense": 1,
    "task_metrics": 1,
    "task_routing": 1,
    "unpooling": 1,
    "weighting": 1,
    "adashare_layer": 2,
    "adashare_search": 2,
    "anchoring": 2,
    "comparison": 2,
    "dynamic_weights": 2,
    "gradnorm": 2,
    "held_out_batches": 2,
    "network_choice": 2,
    "plots": 2,
    "probe": 2,
    "probe_statistics": 2,
    "routed_encoder": 2,
    "routed_networks": 2,
    "segnet_network": 2,
    "selection_pool": 2,
    "selection_rules": 2,
    "selection_summary": 2,
    "selection_tree": 2,
    "serving": 2,
    "study_networks": 2,
    "task_attention": 2,
    "task_losses": 2,
    "train_step": 2,
    "uncertainty_weighting": 2,
    "cadence": 3,
    "column_search": 3,
    "conclusion": 3,
    "early_stopping": 3,
    "encoders": 3,
    "estimators": 3,
    "grouping_plots": 3,
    "layers": 3,
    "loss_table": 3,
    "loss_weighting": 3,
    "method_table": 3,
    "mtan": 3,
    "network_rows": 3,
    "partial_updates": 3,
    "report_tables": 3,
    "stacked_tasks": 3,
    "study_table": 3,
    "task_trainer": 3,
    "adashare_cadence": 4,
    "guard": 4,
    "network_table": 4,
    "selection_columns": 4,
    "serving_tables": 4,
    "study_report": 4,
    "task_model": 4,
    "task_routing_model": 4,
    "adashare_step": 5,
    "backward_passes": 5,
    "group_batch": 5,
    "group_optimizer": 5,
    "group_selection": 5,
    "grouped_model": 5,
    "network_cost": 5,
    "table_selection": 5,
    "anchored_selection": 6,
    "group_update_step": 6,
    "network_yardsticks": 6,
    "stability": 6,
    "task_step": 6,
    "gradient_methods": 7,
    "network_selection": 7,
    "probe_step": 7,
    "selection_plots": 7,
    "method_options": 8,
    "model": 8,
    "report": 8,
    "selective_updates": 8,
    "adashare_network": 9,
    "devices": 9,
    "adashare": 10,
    "saved_classes": 11,
    "training": 12,
    "job": 13,
    "ray_runner": 14,
    "runners": 14,
    "sweep_table": 14,
    "study_flags": 15,
    "sweep": 15,
    "command": 16,
    "experiment": 16,
    "study": 16,
    "study_command": 17,
    "study_methods": 17,
}
# Selecting groups and reading results must be quick, and possible where there is no TensorFlow.
NUMPY_ONLY = {
    "affinity",
    "arrays",
    "checks",
    "column_search",
    "comparison",
    "conclusion",
    "files",
    "group_selection",
    "grouping",
    "guard",
    "loss_table",
    "method_table",
    "network_choice",
    "network_files",
    "network_program",
    "network_reduction",
    "network_rows",
    "network_selection",
    "network_table",
    "network_yardsticks",
    "progress",
    "replication",
    "results",
    "selection_columns",
    "selection_cover",
    "selection_pool",
    "selection_pricing",
    "selection_problem",
    "selection_rules",
    "selection_search",
    "selection_shares",
    "selection_solver",
    "selection_summary",
    "selection_tree",
    "serving",
    "serving_tables",
    "settings",
    "stability",
    "study_networks",
    "study_table",
    "table_selection",
    "task_clustering",
    "tasks",
    "text_table",
    "wording",
}
# By library, the only modules that may import it: the library itself does without.
OPTIONAL = {
    "matplotlib": {"plots", "grouping_plots", "selection_plots", "study_report"},
    "jinja2": {"pages"},
    "ray": {"ray_runner"},
    "sklearn": {"task_clustering"},
}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def read(name):
    return ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))


def imports(tree):
    """Every import in a file, also those inside functions, as dotted names.

    `from tag_keras import files` gives `tag_keras.files`, `from tag_keras.tasks import check`
    gives `tag_keras.tasks.check`.
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


def imported_modules(tree):
    """Second parts of the names that begin with the package; "" for the package itself."""
    names = [name.split(".") for name in imports(tree)]
    return {(*parts, "")[1] for parts in names if parts[0] == "tag_keras"}


def test_the_helpers_see_every_way_to_import():
    code = "import a.b as c, d\nfrom e.f import g\ndef h():\n    from tag_keras import i\n"
    code += "    import tag_keras.j.k\n    import tag_keras\n    from tag_keras.l import m\n"
    tree = ast.parse(code)
    assert libraries(tree) == {"a", "d", "e", "tag_keras"}
    assert imported_modules(tree) == {"i", "j", "l", ""}
    with pytest.raises(AssertionError, match="line 1: write the import with its full name"):
        imports(ast.parse("from . import files"))


def test_every_module_has_a_floor():
    assert sorted(FLOORS) == MODULES, "give a new module its floor in FLOORS"


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_module_imports_only_lower_floors(name):
    for imported in imported_modules(read(name)):
        # A name that is no module would come through __init__.py, which has no floor.
        assert imported in FLOORS, f"{name} imports tag_keras.{imported}, which is no module"
        assert FLOORS[imported] < FLOORS[name], f"{name} imports {imported}"


@pytest.mark.parametrize("name", ["__init__", *MODULES])
def test_the_package_never_imports_what_is_built_on_it(name):
    assert not libraries(read(name)).intersection(APPLICATIONS)


@pytest.mark.parametrize("library", sorted(OPTIONAL))
def test_optional_libraries_are_imported_for_the_report_only(library):
    users = {name for name in ["__init__", *MODULES] if library in libraries(read(name))}
    assert users <= OPTIONAL[library]
    assert users, f"nothing imports {library}: take it out of OPTIONAL"


@pytest.mark.parametrize("name", sorted(NUMPY_ONLY))
def test_modules_without_tensorflow_import_none_that_needs_it(name):
    tree = read(name)
    assert not libraries(tree) & {"keras", "tensorflow"}
    assert imported_modules(tree) <= NUMPY_ONLY


def test_the_package_itself_imports_only_the_standard_library():
    tree = read("__init__")
    kept = [node for node in tree.body if not isinstance(node, ast.If)]
    assert not libraries(ast.Module(kept, [])) & {"numpy", "scipy", "tensorflow", "tag_keras"}
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("name", ["__init__", *MODULES])
def test_errors_are_raised_and_not_asserted(name):
    # `python -O` takes assertions out.
    lines = [node.lineno for node in ast.walk(read(name)) if isinstance(node, ast.Assert)]
    assert lines == []


@pytest.mark.parametrize("name", ["__init__", *MODULES])
def test_flags_are_known_inside_the_functions_of_the_command_only(name):
    tree = read(name)
    if name in ("command", "network_selection", "study_command", "study_flags"):
        assert "absl" in libraries(tree)
        functions = (ast.FunctionDef, ast.ClassDef)
        tree = ast.Module([node for node in tree.body if not isinstance(node, functions)], [])
    assert "absl" not in libraries(tree)


@pytest.mark.parametrize("application", ["digits", "celeba", "taskonomy"])
def test_flags_of_an_application_live_in_its_command(application):
    for path in (ROOT / application).glob("*.py"):
        if path.name != "train.py":
            assert "absl" not in libraries(ast.parse(path.read_text(encoding="utf-8"))), path.name
