"""Numbers of TAG's CelebA notebook (Fifty et al. 2021, arXiv 2109.04617)."""

EPOCHS, BATCH_SIZE, LEARNING_RATE = 100, 256, 5e-4
# The release divides the right answers on 19,962 test images by the number of validation images.
ORIGINAL_FACTOR = 19_962 / 19_867
PUBLISHED = {"stl, validation": {9.0: 58.67}}
SOURCE = (
    "google-research/google-research, tag/network_selection/HOA_network_selection.ipynb, the sum "
    "of its single-task errors, which are of the validation split; the release does not have the "
    "totals of the paper's tables"
)
