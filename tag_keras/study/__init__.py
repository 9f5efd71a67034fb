"""Studies: the tables of the papers, one method after the other in one folder.

`Study` says where and how networks are trained, `methods` which networks each method needs and how
it chooses, `table` and `report` sum up what they have reached. Scripts build a study from `flags`
and run it by `command`.
"""

from tag_keras.study.study import BuildStudyModel, Study

__all__ = ["BuildStudyModel", "Study"]
