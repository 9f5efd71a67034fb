"""The names that the flags take. What they stand for takes seconds to load."""

CLASSIFICATION = (
    *("is_even", "at_least_five", "is_prime", "has_loop", "multiple_of_three"),
    "left_heavy",
)
REGRESSION = ("ink", "slant", "height")
TASKS = (*CLASSIFICATION, *REGRESSION)
ENCODERS = ("conv", "resnet")
# Methods that train one network for all tasks, to compare groups with.
RIVALS = (
    *("mtl_long", "uw", "dwa", "gradnorm", "rlw", "imtl_l", "gls", "db_mtl", "stch", "famo"),
    *("pcgrad", "gradvac", "upgrad", "dual_proj", "cagrad", "mgda", "imtl_g", "config"),
    *("aligned_mtl", "nash_mtl", "fairgrad", "selective"),
    *("mtan", "task_routing", "mmoe", "cgc", "ple", "cross_stitch", "adashare"),
)
