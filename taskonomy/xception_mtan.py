"""MTAN on the Xception of Taskonomy: attention of each task at every stage."""

from collections.abc import Sequence

import keras

from tag_keras.networks.mtan import TaskAttention
from tag_keras.utils.tasks import check_task_names
from taskonomy import xception

layers = keras.layers

# The blocks of a stage: the first three halve the image, each alone.
_STAGES = ((1,), (2,), (3,), (4, 5, 6, 7), (8, 9, 10, 11))


def mtan_encoder(
    tasks: Sequence[str], image_size: int = 256, widths: Sequence[int] = xception.WIDTHS["full"]
) -> keras.Model:
    """Multi-Task Attention Network on an Xception (MTAN; Liu, Johns and Davison 2019).

    arXiv 1803.10704, which has no Xception. At the end of a stage each task looks at what comes
    into the last block and at what comes out of it, through a `TaskAttention` of a quarter of its
    channels, as in the authors' network for residual blocks; what comes into a block that halves
    the image is pooled. From one stage to the next, and to the 512 channels of the decoders, lead
    layers that all tasks share.

    Args:
        tasks: Task names.
        image_size: Height and width of the images, divisible by 16.
        widths: Channels, as in `xception.WIDTHS`.

    Returns:
        Functional model from images (B, H, W, 3) to a dict of features (B, H/16, W/16, 512) by
        task.

    Raises:
        ValueError: If there is no task, or as for `xception.xception_encoder`.
    """
    names = check_task_names(list(tasks))
    images, x = xception.stem(image_size, widths)
    previous: dict[str, list[keras.KerasTensor]] = {task: [] for task in names}
    for stage in _STAGES:
        for block in stage:
            before, x = x, xception.xception_block(x, block, widths)
        pooling = layers.MaxPooling2D(2) if stage[-1] <= 3 else layers.Identity()
        width = x.shape[-1]
        inputs = {task: [pooling(one) for one in previous[task]] for task in names}
        u = pooling(before)
        seen = {task: TaskAttention(width // 4)([u, x, *inputs[task]]) for task in names}
        previous = {task: [features] for task, features in seen.items()}
    top = xception.shared_top()
    outputs = {task: top(layers.ReLU()(features)) for task, (features,) in previous.items()}
    return keras.Model(images, outputs, name="mtan_encoder")
