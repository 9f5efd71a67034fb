"""The problems of the truth tables."""

import numpy as np

from benchmarks.truth import sets as truth_sets


def test_the_sets_are_whole():
    for make in truth_sets.SETS.values():
        truth_set = make()
        sizes = {split: len(x) for split, (x, _) in truth_set.splits.items()}
        assert [*sizes] == ["train", "validation", "test"]
        assert sizes["train"] <= sizes["validation"] <= sizes["test"]
        for split, (_, y) in truth_set.splits.items():
            assert tuple(y) == truth_set.tasks
            assert all(values.shape == (sizes[split], 1) for values in y.values())
            assert all(np.isfinite(values).all() for values in y.values())


def test_worst_nuclei_are_larger_where_the_diagnosis_is_malignant():
    x, y = truth_sets.cancer().splits["test"]
    assert x.shape[1] == 10
    malignant = y["malignant"][:, 0] == 1
    assert 0.2 < malignant.mean() < 0.5
    assert y["worst_radius"][malignant].mean() > y["worst_radius"][~malignant].mean() + 1
