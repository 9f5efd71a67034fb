"""Studies: the tables of the papers, one method after the other in one folder.

`Study` says where and how networks are trained, `methods` which networks each method needs and how
it chooses, `table` and `report` sum up what they have reached. Scripts define `flags`, build the
study that these ask for by `from_flags`, and run it by `command`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from tag_keras.study.study import BuildStudyModel, Study

__all__ = ["BuildStudyModel", "Study"]

# At first use, because `flags` should not load TensorFlow.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"study": __all__})
