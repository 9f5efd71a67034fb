"""MTAN on the Xception of Taskonomy: attention of each task at every stage."""

from collections.abc import Sequence

import keras

from tag_keras.networks.mtan import TaskAttention
from tag_keras.utils.tasks import check_task_names
from taskonomy import xception

layers = keras.layers

# The blocks of each stage. The first three blocks halve the image, and are a stage each.
_STAGES = ((1,), (2,), (3,), (4, 5, 6, 7), (8, 9, 10, 11))


def mtan_encoder(
    tasks: Sequence[str], image_size: int = 256, widths: Sequence[int] = xception.WIDTHS["full"]
) -> keras.Model:
    """MTAN on an Xception (Multi-Task Attention Network; Liu, Johns and Davison 2019).

    arXiv 1803.10704, which has no Xception. At the end of a stage each task looks at the input and
    at the output of the last block, through a `TaskAttention` with a quarter of its channels, as in
    the authors' network with residual blocks. The input of a block that halves the image is pooled.
    Layers that all tasks share lead from one stage to the next, and to the 512 channels that the
    decoders take.

    Args:
        tasks: Task names.
        image_size: Height and width of the images in pixels, divisible by 16.
        widths: Channels of the two first convolutions and of the first three blocks.

    Returns:
        Functional model from images (B, H, W, 3) to a dict of features (B, H/16, W/16, 512) by
        task.

    Raises:
        ValueError: If there is no task, if the size is not divisible by 16, or if there are not
            five widths.
    """
    names = check_task_names(list(tasks))
    images, x = xception.stem(image_size, widths)
    previous: dict[str, list[keras.KerasTensor]] = {task: [] for task in names}
    for stage in _STAGES:
        for block in stage:
            before, x = x, xception.xception_block(x, block, widths)
        pooling = layers.MaxPooling2D(2) if stage[-1] <= 3 else layers.Identity()
        inputs = {task: [pooling(one) for one in previous[task]] for task in names}
        u, width = pooling(before), x.shape[-1] // 4
        seen = {task: TaskAttention(width)([u, x, *inputs[task]]) for task in names}
        previous = {task: [features] for task, features in seen.items()}
    top = xception.shared_top()
    outputs = {task: top(layers.ReLU()(seen[task])) for task in names}
    return keras.Model(images, outputs, name="mtan_encoder")
