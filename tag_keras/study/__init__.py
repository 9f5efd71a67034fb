"""Studies: the papers' tables, one method after the other in one folder."""

from tag_keras.study.study import BuildStudyModel, Study

__all__ = ["BuildStudyModel", "Study"]
