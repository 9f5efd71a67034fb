import pytest

from taskonomy.domains import TASKS, domains_of, task_names


def test_tasks_by_letters_and_by_names():
    # The flag of TAG's patch, and the default of Standley's script, which has the same tasks.
    assert task_names("sdntk") == TASKS
    assert {*task_names("sdnkt")} == {*TASKS}
    assert task_names("normal") == ("normal",)
    assert task_names("normal, keypoints2d") == ("normal", "keypoints2d")
    assert task_names(["n", "edge_occlusion", "ss_l"]) == (
        "normal",
        "edge_occlusion",
        "segment_semantic",
    )
    # TAG's published results have these names.
    assert task_names(["ss_l", "depth_l", "norm_l", "edge2d_l", "key_l"]) == TASKS


@pytest.mark.parametrize("tasks", ["", "sdx", "ss", [], ["rgb"], ["n", "normal"], "normals"])
def test_errors_of_tasks(tasks):
    with pytest.raises(ValueError, match="`tasks` should be some of Taskonomy's, each once: s seg"):
        task_names(tasks)


def test_depth_is_needed_where_it_tells_what_has_no_label():
    assert domains_of(["keypoints2d"]) == ("rgb", "keypoints2d")
    assert domains_of(["normal"]) == ("rgb", "normal", "depth_zbuffer")
    assert domains_of(["depth_zbuffer", "normal"]) == ("rgb", "depth_zbuffer", "normal")
