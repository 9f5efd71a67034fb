"""Breast cancer: the diagnosis and the worst nuclei of a sample, from its average nucleus.

Source: bundled with scikit-learn (BSD-3-Clause): Wisconsin Diagnostic Breast Cancer (Street et al.
1993, CC BY 4.0).

569 samples. The inputs are ten measures, averaged over the nuclei of the sample. The tasks are the
diagnosis and, for six measures, the mean of the three largest values. A pathologist looks for
these, and a blurred or small image shows them badly. The split is at random.
"""

import numpy as np

from benchmarks.truth.problems.problem import Problem, split_at_random

DIAGNOSIS = "malignant"
MEASURES = ("radius", "texture", "smoothness", "concavity", "symmetry", "fractal dimension")


def load() -> Problem:
    """Loads the problem."""
    # It takes a second to load, which the names of problems do without.
    import sklearn.datasets

    bunch = sklearn.datasets.load_breast_cancer()
    columns = dict(zip(bunch.feature_names, bunch.data.T, strict=True))
    x = np.stack([columns[name] for name in columns if name.startswith("mean ")], axis=1)
    y = {DIAGNOSIS: (bunch.target == 0).astype(float)}
    y |= {f"worst_{name.replace(' ', '_')}": columns[f"worst {name}"] for name in MEASURES}
    return split_at_random(x, y, classes=(DIAGNOSIS,))
