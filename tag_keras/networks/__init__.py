"""Networks in which tasks share some parts and have others to themselves.

- `resnet`: one ResNet for all tasks (hard sharing), and the blocks of the others.
- `mtan`: an attention module for each task at every block, on a ResNet or a `segnet`.
- `adashare`: each task executes some of the blocks, and training finds out which.
- `task_routing`: each task uses some of the channels of every layer.

All encoders for images take the same arguments first, so that one can stand in for another.
"""
