"""NHEFS: the health of smokers, eleven years after they were asked and examined.

Source: causaldata 0.1.5 (MIT), causaldata/nhefs/nhefs.dta: the follow-up of the US National Health
and Nutrition Examination Survey, as in Hernán and Robins, "Causal Inference: What If".

1,629 smokers. The 46 inputs are of 1971: age, sex, habits, body, illnesses, and the price of
cigarettes. The tasks are blood pressure (systolic, diastolic) and the changes of weight and of
smoking in 1982, cholesterol in 1971, and whether the person stopped smoking and had died by 1992.
People who lack one of these are left out. The split is at random.
"""

import io

import numpy as np

from benchmarks.truth.problems.packages import load_reader, read_members
from benchmarks.truth.problems.problem import Problem, split_at_random

PACKAGE, VERSION = "causaldata", "0.1.5"
MEMBERS = ["causaldata/nhefs/nhefs.dta"]
# By task, the column of the file.
TASKS = {
    "systolic": "sbp",
    "diastolic": "dbp",
    "cholesterol": "cholesterol",
    "weight_change": "wt82_71",
    "smoking_change": "smkintensity82_71",
    "stopped": "qsmk",
    "died": "death",
}
CLASSES = ("stopped", "died")
# Numbers of persons and places; what is a task, of 1982 or later, or follows from these.
LEFT_OUT = (
    *("seqn", "id", "birthplace", "yrdth", "modth", "dadth", "wt82", "censored", "older"),
    *("hightax82", "price82", "tax82", "price71_82", "tax71_82", *TASKS.values()),
)


def load() -> Problem:
    """Loads the problem."""
    pandas = load_reader("pandas", PACKAGE)
    (content,) = read_members(PACKAGE, VERSION, MEMBERS)
    table = pandas.read_stata(io.BytesIO(content), convert_categoricals=False).astype(float)
    table = table.dropna(subset=list(TASKS.values()))
    inputs = [name for name in table if name not in LEFT_OUT]
    y = {task: table[column].to_numpy() for task, column in TASKS.items()}
    return split_at_random(np.array(table[inputs]), y, classes=CLASSES)
