import collections
import gc
import os

# Before TensorFlow is loaded: its notices about the processor are of no use here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Before NumPy is: for small matrices its threads only wait for each other, and each worker of
# pytest-xdist has its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="module", autouse=True)
def leave_what_is_there():
    """Each search for garbage would go through all that the modules before have left, too.

    It takes half a second with all libraries loaded, and every `clear_session` makes one.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_replicas():
    """One strategy for all tests: TensorFlow may fail where one process makes several."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(tf.config.list_logical_devices("CPU")[:2])


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the slow tests, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; runs with --runslow")
    config.addinivalue_line("markers", "slow_cases: all but its first case are slow")
    # The process that gives the tests to workers does not need TensorFlow.
    if config.getoption("dist", "no") == "no":
        make_two_devices()


def make_two_devices():
    """So that tests can run MirroredStrategy; the others use the first."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


# Files of slow tests that take a minute or more.
LONGEST = (
    *("sweep/stack/test_equal_to_alone.py", "sweep/stack/test_stacked_jobs.py"),
    *("backend/test_mirrored.py", "backend/test_multi_worker.py", "sweep/test_processes.py"),
    *("test_docstring_examples.py", "test_docs.py", "decision/test_decision.py"),
    "test_tutorials.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    seen = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if "slow_cases" in item.keywords and "slow" not in item.keywords:
            if test in seen:
                item.add_marker("slow")
            seen.add(test)
    if not config.getoption("--runslow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs --runslow"))
    # What takes longest comes first, so that at the end no worker waits long for another (with
    # --no-loadscope-reorder of pytest-xdist). Of the other files, those with few tests do.
    runs = [item for item in items if ("slow" in item.keywords) == config.getoption("--runslow")]
    numbers = collections.Counter(item.path for item in runs)
    for item in runs:
        if config.getoption("--runslow") and item.path.as_posix().endswith(LONGEST):
            numbers[item.path] = 0
    items.sort(key=lambda item: numbers[item.path])
