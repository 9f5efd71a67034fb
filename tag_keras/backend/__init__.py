"""What Keras and `tf.distribute` leave to us.

Only these files use names of Keras and TensorFlow that are not public.
"""
