"""Yeast: functional classes of genes, from microarrays and phylogenetic profiles.

Source: river 0.26.1 (BSD-3-Clause), river/datasets/yeast.csv.gz: the data of Elisseeff and Weston
(2001), "A kernel method for multi-labelled classification".

2,417 genes with 103 inputs. The tasks are the first eight of fourteen classes; a gene has about
four. The others are left out, because all groups of fourteen tasks are too many to train; the last
class has but 34 genes. The split is at random.
"""

import csv
import gzip

import numpy as np

from benchmarks.truth.problems.packages import read_members
from benchmarks.truth.problems.problem import Problem, split_at_random

PACKAGE, VERSION = "river", "0.26.1"
MEMBERS = ["river/datasets/yeast.csv.gz"]
NUM_INPUTS, NUM_TASKS = 103, 8


def load() -> Problem:
    """Loads the problem."""
    (content,) = read_members(PACKAGE, VERSION, MEMBERS)
    header, *rows = csv.reader(gzip.decompress(content).decode().splitlines())
    values = np.array(rows, float)
    tasks = header[NUM_INPUTS : NUM_INPUTS + NUM_TASKS]
    y = {task.lower(): values[:, header.index(task)] for task in tasks}
    return split_at_random(values[:, :NUM_INPUTS], y, classes=tuple(y))
