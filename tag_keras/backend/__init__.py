"""What Keras and `tf.distribute` leave to us. Only this room uses their private names.

`replicas` sums over the devices of a strategy, `multi_worker` mends `fit` for several hosts.
`steps` counts steps and makes train functions, `optimizers` takes steps that change nothing,
`gradients` has a backward pass per task, `precision` computes in float32, `layers` lists layers.
"""
