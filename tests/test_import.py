"""What importing the package does, and what it does not: most of it in processes of its own."""

import ast
import functools
import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from quick_start import python_path

import tag_keras

ROOT = pathlib.Path(__file__).parents[1]
# Whatever decides about the backend, so that the tests do not depend on who runs them.
DECIDES = ("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS")
WRONG_BACKEND = (
    "ImportError: tag_keras works with the TensorFlow backend of Keras. Found: {!r}. Set "
    "KERAS_BACKEND=tensorflow in the environment before importing Keras."
)
NAMES_OF_VERSION_0_1 = """
    AdaShareEncoder AdaShareModel AdaSharePolicy AdaShareSearch Affinity CosineAffinity
    DynamicWeightAverage EarlyStopping EqualWeighting FirstOrderAffinity GradNorm GradientMethod
    GroupedModel Grouping GroupingStability LookaheadAffinity LossWeighting MultiTaskModel
    NetworkCost NetworkSelection NetworkTable PCGrad ResidualBlock RoutedEncoder
    SelectiveTaskGroupUpdates Serving TaskAttention TaskDense TaskRouting TaskRoutingModel
    UPGrad UncertaintyWeighting adashare_encoder anchor_affinity grouping_stability guard_groups
    load_network measure_cost merge_datasets mtan_encoder mtan_segnet random_networks
    resnet_encoder routed_resnet routed_vgg11 segnet select_groups select_networks
    selection_frontier task_network task_routing_encoder train_groups write_report
"""
FAKE_KERAS = """
import sys, types
sys.modules["keras"] = keras = types.ModuleType("keras")
keras.__version__ = {version!r}
keras.config = types.SimpleNamespace(backend=lambda: {backend!r})
import tag_keras
"""


def run_python(home, code, **environment):
    """Runs code in a new interpreter whose home folder is empty; warnings are errors there, too."""
    inherited = {name: value for name, value in os.environ.items() if name not in DECIDES}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, "HOME": str(home), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def python(tmp_path):
    return functools.partial(run_python, tmp_path)


def configure_keras(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "keras.json").write_text(content)
    return str(folder)


def assert_fails(process, last_line):
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == last_line


def assert_succeeds(process):
    assert (process.returncode, process.stderr) == (0, "")


def test_selecting_groups_loads_neither_tensorflow_nor_keras(python):
    process = python(
        "import sys, tag_keras, tag_keras.affinity, tag_keras.results, tag_keras.comparison\n"
        "affinity = tag_keras.Affinity(['a', 'b'], [[0, 1], [1, 0]])\n"
        "print(tag_keras.select_groups(affinity, num_groups=1).groups)\n"
        "loaded = {'tensorflow', 'keras', 'absl', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "print(sorted(loaded))"
    )
    assert_succeeds(process)
    assert process.stdout.splitlines() == ["(('a', 'b'),)", "[]"]


def test_figures_need_neither_tensorflow_nor_jinja(python):
    process = python(
        "import sys\nsys.modules['jinja2'] = None\nimport tag_keras\n"
        "affinity = tag_keras.Affinity(['a', 'b'], [[0, 1], [1, 0]])\n"
        "print(type(tag_keras.plots.plot_affinity(affinity)).__name__)\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    assert_succeeds(process)
    assert process.stdout.splitlines() == ["Axes", "[]"]


@pytest.mark.slow
def test_affinities_are_logged_without_libraries_for_reports(python):
    process = python(
        "import sys\nsys.modules.update(jinja2=None, matplotlib=None, pandas=None)\n"
        "import tag_keras\nprint(tag_keras.AffinityLogger(log=print).__class__.__name__)",
        TF_CPP_MIN_LOG_LEVEL="3",
        PYTHONPATH=python_path(),
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["AffinityLogger"]


@pytest.mark.parametrize("backend", ["jax", "torch", "numpy"])
def test_another_backend_in_the_environment_is_refused(python, backend):
    process = python("import tag_keras", KERAS_BACKEND=backend)
    assert_fails(process, WRONG_BACKEND.format(backend))


def test_another_backend_in_the_configuration_of_keras_is_refused(python, tmp_path):
    content = '{"floatx": "float32", "backend": "torch"}'
    home = configure_keras(tmp_path / "elsewhere", content)
    assert_succeeds(python("import tag_keras"))
    assert_fails(python("import tag_keras", KERAS_HOME=home), WRONG_BACKEND.format("torch"))

    configure_keras(tmp_path / ".keras", content)
    assert_fails(python("import tag_keras"), WRONG_BACKEND.format("torch"))


def test_the_environment_decides_before_the_configuration(python, tmp_path):
    home = configure_keras(tmp_path / "elsewhere", '{"backend": "torch"}')
    process = python("import tag_keras", KERAS_HOME=home, KERAS_BACKEND="tensorflow")
    assert_succeeds(process)
    home = configure_keras(tmp_path / "elsewhere", '{"backend": "tensorflow"}')
    process = python("import tag_keras", KERAS_HOME=home, KERAS_BACKEND="jax")
    assert_fails(process, WRONG_BACKEND.format("jax"))


@pytest.mark.parametrize(
    "content", ['{"backend": "tensorflow"}', '{"floatx": "float32"}', "{", "[]", ""]
)
def test_a_configuration_that_names_no_other_backend_will_do(python, tmp_path, content):
    home = configure_keras(tmp_path / "elsewhere", content)
    assert_succeeds(python("import tag_keras", KERAS_HOME=home, KERAS_BACKEND=""))


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_legacy_keras_is_refused(python, value):
    process = python("import tag_keras", TF_USE_LEGACY_KERAS=value)
    assert_fails(
        process,
        "ImportError: tag_keras works with Keras 3, and TF_USE_LEGACY_KERAS asks for Keras 2. "
        "Unset TF_USE_LEGACY_KERAS before importing it.",
    )


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_legacy_keras_that_is_not_asked_for_is_not_refused(python, value):
    assert_succeeds(python("import tag_keras", TF_USE_LEGACY_KERAS=value))


def test_keras_2_that_was_imported_before_is_refused(python):
    process = python(FAKE_KERAS.format(version="2.15.0", backend="tensorflow"))
    assert_fails(
        process,
        "ImportError: tag_keras works with Keras 3. Found: Keras 2.15.0. Install it with: "
        'pip install "keras>=3.10".',
    )


def test_keras_that_was_imported_before_tells_its_backend(python):
    process = python(FAKE_KERAS.format(version="3.15.1", backend="jax"))
    assert_fails(process, WRONG_BACKEND.format("jax"))
    # It has decided, so the environment has no more to say.
    code = FAKE_KERAS.format(version="3.15.1", backend="tensorflow")
    assert_succeeds(python(code, KERAS_BACKEND="jax"))


# Prints the classes that Keras knows, each on a line.
KNOWN = """
known = keras.saving.get_custom_objects().values()
print(*(f'{one.__module__} {one.__name__}' for one in known), sep='\\n')
"""
AFTER_KERAS = f"""
import sys, absl.app, absl.logging, tensorflow, keras
from absl import flags
before = set(flags.FLAGS)
import tag_keras
{KNOWN}
import tag_keras.network_selection, tag_keras.experiment, digits.train
print(sorted(set(flags.FLAGS) - before))
"""


@pytest.fixture(scope="module")
def after_keras(tmp_path_factory):
    """Lines of a program that imports Keras first, then the package, then its modules."""
    home = tmp_path_factory.mktemp("home")
    process = run_python(home, AFTER_KERAS, TF_CPP_MIN_LOG_LEVEL="3")
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.mark.slow
def test_importing_the_modules_defines_no_flags(after_keras):
    # Flags are for whole programs: they would clash with those of the program that imports.
    assert after_keras[-1] == "[]"


def assert_knows_every_class(lines):
    known = {tuple(line.split()) for line in lines}
    registered = {
        (".".join(path.relative_to(ROOT).with_suffix("").parts), node.name)
        for path in (ROOT / "tag_keras").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        and any("register_keras_serializable" in ast.unparse(one) for one in node.decorator_list)
    }
    assert ("tag_keras.loss_weighting.uncertainty", "UncertaintyWeighting") in registered
    assert registered <= known


# Who loads a model has used none of its classes before.
def test_keras_that_was_imported_first_knows_every_class_of_a_saved_model(after_keras):
    assert_knows_every_class(after_keras[:-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import tag_keras\nimport keras\ntag_keras.MultiTaskModel",
        "import tag_keras.sweep\nimport keras",
    ],
    ids=["keras last", "training"],
)
def test_keras_knows_every_class_of_a_saved_model_and_modules_have_their_names(python, imports):
    served = "print(tag_keras.experiment.run.__module__, tag_keras.results.load_results.__module__)"
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": python_path()}
    process = python(f"{imports}\n{KNOWN}\n{served}", **environment)
    assert process.returncode == 0, process.stderr
    *known, modules = process.stdout.splitlines()
    assert_knows_every_class(known)
    assert modules.split() == ["tag_keras.experiment", "tag_keras.results"]


def stub():
    """By public name in `__init__.pyi`, the module that defines it; "" for a module itself."""
    tree = ast.parse((ROOT / "tag_keras" / "__init__.pyi").read_text(encoding="utf-8"))
    return {
        alias.asname: node.module or ""
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_public_name_is_what_its_module_defines():
    assert sorted(tag_keras.__all__) == sorted(stub())
    for name, module in stub().items():
        value = getattr(tag_keras, name)
        assert name in dir(tag_keras)
        if module:
            assert value is getattr(sys.modules[f"tag_keras.{module}"], name)
            assert (value.__module__, value.__name__) == (f"tag_keras.{module}", name)
        else:
            assert value is sys.modules[f"tag_keras.{name}"]


def test_the_names_of_version_0_1_are_still_there():
    names = NAMES_OF_VERSION_0_1.split()
    assert len(names) == 53
    assert set(names) <= set(tag_keras.__all__)


def test_an_unknown_name_is_an_attribute_error_that_knows_the_nearest_one(capsys):
    with pytest.raises(AttributeError) as caught:
        _ = tag_keras.select_group
    message = "module 'tag_keras' has no attribute 'select_group'. Did you mean 'select_groups'?"
    assert str(caught.value) == message
    # As Python prints it, with what it may add.
    sys.__excepthook__(caught.type, caught.value, None)
    assert capsys.readouterr().err.rstrip().endswith(message)
    with pytest.raises(AttributeError, match=r"has no attribute 'zzz'$"):
        _ = tag_keras.zzz
    assert not hasattr(tag_keras, "nothing")


@pytest.mark.parametrize(
    "family", ["estimators", "gradient_methods", "layers", "loss_weighting", "report"]
)
def test_a_family_is_at_its_own_import_path_too(family):
    module = importlib.import_module(f"tag_keras.{family}")
    shared = set(module.__all__).intersection(tag_keras.__all__)
    assert shared
    for name in shared:
        assert getattr(module, name) is getattr(tag_keras, name)
