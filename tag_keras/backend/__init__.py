"""What Keras and `tf.distribute` leave to us. Only this room uses their private names.

`replicas` adds values up over the devices of a strategy, `multi_worker` mends `fit` for several
hosts. `steps` counts training steps and makes train functions, `optimizers` takes steps without
changing anything, `gradients` has one backward pass per task. `precision` computes in float32 with
a model of mixed precision, `layers` looks into layers.
"""
