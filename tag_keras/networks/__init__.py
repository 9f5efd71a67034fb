"""Networks in which tasks share some parts and have others to themselves.

- `resnet`: one ResNet for all tasks (hard sharing), and the blocks of the others.
- `mtan`: an attention module for each task at every block, on a ResNet or a `segnet`.
- `adashare`: each task executes some of the blocks, and training finds out which.
- `task_routing`: each task uses some of the channels of every layer.

- `experts`: each task weighs experts, of all or its own, by a gate (MMoE, CGC, PLE).
- `cross_stitch`: each task has a network, which takes over features of the others.

All encoders for images take the same arguments first, so that one can stand in for another. Experts
and stitched networks are made of any layers; `parallel_layers` is what these two have in common.
"""
