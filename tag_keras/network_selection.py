"""Network selection: which tasks share a network. What it is made of, and the command."""

import sys

from tag_keras.affinity import Affinity
from tag_keras.group_selection import select_groups
from tag_keras.grouping import Grouping

__all__ = ["Grouping", "main", "select_groups"]


def main(argv: list[str]) -> int:
    """Selects groups as the flags in `argv` say, and returns the exit status."""
    # Importing this module must not define flags, nor may a second call meet those of the first.
    from absl import flags

    given = flags.FlagValues()
    flags.DEFINE_string("scores", None, "File to read affinities from.", given, required=True)
    flags.DEFINE_integer("num_groups", None, "Largest number.", flag_values=given, required=True)
    flags.DEFINE_string("output", None, "File to write groups to.", given, required=True)
    flags.DEFINE_enum("singletons", "forbid", ["forbid", "baseline"], "Groups of one.", given)
    if "--help" in argv:
        print(given.get_help())
        return 0
    try:
        if unknown := given(argv)[1:]:
            raise flags.Error(f"Unknown arguments: {' '.join(unknown)}")
        grouping = select_groups(Affinity.load(given.scores), given.num_groups, given.singletons)
        grouping.save(given.output)
    except (flags.Error, OSError, ValueError) as error:
        print("network_selection:", str(error).replace("\n", " "), file=sys.stderr)
        return 2 if isinstance(error, flags.Error) else 1
    for index, group in enumerate(grouping.groups):
        served = ", ".join(grouping.served(index))
        print(f"group {index}: {', '.join(group)}; serves {served}")
    print(f"score {grouping.score:.6g}, optimal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
