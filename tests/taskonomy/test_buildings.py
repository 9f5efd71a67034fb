"""Lists of buildings, against the numbers that Taskonomy's README and TAG's files give."""

import itertools

import pytest

from taskonomy.buildings import SUBSETS, building_lists


def sizes(buildings):
    return [len(names) for names in building_lists(buildings).values()]


def test_the_numbers_are_those_published():
    # Totals of Taskonomy's README. It gives 98 + 20 + 20, 344 + 67 + 71 and 381 + 75 + 81 for the
    # splits; the lists themselves have one or two of the test's buildings among those to train on.
    assert [sum(sizes(name)) for name in SUBSETS] == [35, 138, 482, 537]
    assert sizes("tiny") == [25, 5, 5]
    assert sizes("medium") == [99, 20, 19]
    assert sizes("full") == [346, 67, 69]
    assert sizes("fullplus") == [383, 75, 79]
    # Lines of train_models.txt, val_models.txt and test_models.txt.
    assert sizes("original") == [107, 18, 17]


def test_each_subset_is_a_part_of_the_next_with_the_same_split():
    for smaller, larger in itertools.pairwise(SUBSETS):
        for split, names in building_lists(smaller).items():
            assert {*names} < {*building_lists(larger)[split]}
    assert "allensville" in building_lists("tiny")["train"]
    assert "hortense" in building_lists("original")["validation"]
    assert "kirwin" in building_lists("original")["test"]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_a_csv_file_as_taskonomys(tmp_path, end):
    path = tmp_path / "mine.csv"
    rows = ["id,train,val,test", "Hanson,1,0,0", "darden,0,1,0", "uvalda,0,0,1", "byers,0,0,0"]
    path.write_bytes(end.join(rows).encode())
    wanted = {"train": ("hanson",), "validation": ("darden",), "test": ("uvalda",)}
    assert building_lists(path) == building_lists(str(path)) == wanted
    assert building_lists({"test": ["Uvalda"]}) == {
        "train": (),
        "validation": (),
        "test": ("uvalda",),
    }


def test_errors_of_lists(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"should be one of original, tiny, .*splits_taskon"
    ):
        building_lists("small")
    path = tmp_path / "mine.csv"
    path.write_text("name,split\nhanson,train\n")
    with pytest.raises(ValueError, match="should have the columns id, train, val and test"):
        building_lists(path)
    with pytest.raises(ValueError, match="`buildings` should have names by split"):
        building_lists({"training": ["hanson"]})
    with pytest.raises(ValueError, match=r"in one split, and there once.*twice=\['hanson'\]"):
        building_lists({"train": ["hanson"], "test": ["hanson"]})
