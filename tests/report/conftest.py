import pytest
from report_cases import SERVES, TASKS, make_affinity, make_grouping, make_rows

from tag_keras.report import report
from tag_keras.results import Row


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder of a report with all kinds of networks."""
    folder = tmp_path_factory.mktemp("report")
    rows = make_rows()
    # A seed that the groups lack is left out for all, and so are networks of other names.
    rows += [
        Row("joint", TASKS, 7, task, split, 99.0, {"accuracy": 0.0}, 18.0)
        for task in TASKS
        for split in ("validation", "test")
    ]
    rows.append(Row("pcgrad", ("other",), 0, "other", "test", 99.0, {}, 1000.0))
    report.write_report(folder / "report.html", make_affinity(), make_grouping(serves=SERVES), rows)
    return folder


@pytest.fixture(scope="session")
def page(folder):
    return (folder / "report.html").read_text("utf-8")
