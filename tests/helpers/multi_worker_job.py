"""What every worker in test_multi_worker.py does; one device runs its cases, too."""

import json
import os
import pathlib
import pickle
import signal
import sys

# As in conftest.py; and without a GPU, which each worker would take for itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tag_keras
from tag_keras.backend.replicas import mean_over_workers

# Two tasks and few layers: each process traces all of their steps.
TASKS = ("a", "b")
SIZE, BATCH = 64, 16


def make_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SIZE, 6)).astype("float32")
    return x, {"a": 1 + x[:, :1], "b": (x[:, 1:2] > 0).astype("float32")}


def make_dataset(batch=BATCH):
    return tf.data.Dataset.from_tensor_slices(make_data()).batch(batch)


def make_own_dataset():
    """What this worker is to see of each batch, in a data set of its own that is not sharded."""
    workers, index = number_of_workers(), own_index()

    def own(array):
        return array.reshape(-1, workers, BATCH // workers, array.shape[1])[:, index].reshape(
            -1, array.shape[1]
        )

    data = keras.tree.map_structure(own, make_data())
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # Batches of the global size, of which TensorFlow makes the worker's; Keras counts them before
    # and would end the epoch too early, hence without end.
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH).repeat()
    return dataset.with_options(options)


def make_model(strategy, optimizer, affinity=None):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        encoder = keras.Sequential([keras.layers.Dense(8, "tanh", kernel_regularizer="l2")])
        model = tag_keras.MultiTaskModel(encoder, {t: keras.layers.Dense(1) for t in TASKS})
        loss = {"a": "mse", "b": keras.losses.BinaryCrossentropy(from_logits=True)}
        # One device eagerly, because tracing takes longer than its few steps.
        alone = strategy.num_replicas_in_sync == 1
        model.compile(optimizer(), loss, metrics=["mae"], affinity=affinity, run_eagerly=alone)
    return model


def results(model, history):
    affinity = model.get_affinity() if model._affinity_options else None
    return {
        "history": history.history,
        "weights": model.get_weights(),
        "optimizer": [np.array(variable) for variable in model.optimizer.variables],
        "affinity": affinity and affinity.mean,
        "error": affinity and affinity.standard_error,
        "count": affinity and affinity.count,
        "epochs": affinity and affinity.history,
    }


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def train_on_own_part(strategy):
    """With a Keras whose reduction of logs leaves their axes alone."""
    trainer = sys.modules["keras.src.backend.tensorflow.trainer"]

    def reduce(values, strategy, reduction):
        return keras.tree.map_structure(lambda v: strategy.reduce("MEAN", v, axis=None), values)

    model = make_model(strategy, momentum)
    steps = {"steps_per_epoch": SIZE // BATCH, "epochs": 2, "shuffle": False}
    original, trainer.reduce_per_replica = trainer.reduce_per_replica, reduce
    try:
        return results(model, model.fit(make_own_dataset(), verbose=0, **steps))
    finally:
        trainer.reduce_per_replica = original


def train_and_evaluate(strategy):
    model = make_model(strategy, momentum, tag_keras.LookaheadAffinity(every=3))
    data = {"validation_data": make_dataset(), "shuffle": False}
    history = model.fit(make_dataset(), epochs=2, verbose=0, **data)
    evaluated = model.evaluate(make_dataset(), verbose=0, return_dict=True)
    return results(model, history) | {"evaluated": evaluated}


def train_on_arrays(strategy):
    model = make_model(strategy, lambda: keras.optimizers.SGD(0.05))
    data = {"batch_size": BATCH, "validation_data": make_data(), "shuffle": False}
    found = results(model, model.fit(*make_data(), epochs=2, verbose=0, **data))
    found["predicted"] = model.predict(make_data()[0], verbose=0)
    # Shuffled, and with nothing to learn: the losses of the data, if each example is seen.
    model.optimizer.learning_rate = 0.0
    shuffled = model.fit(*make_data(), batch_size=BATCH, verbose=0)
    return found | {"shuffled": shuffled.history}


def start_apart(strategy):
    """As when one worker finds a backup and the other does not."""
    model = make_model(strategy, momentum)
    model.optimizer.iterations.assign(4 * (1 - own_index()))
    try:
        model.fit(make_dataset(), shuffle=False, verbose=0)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None}


def probe_held_out(strategy):
    # Of batches of 15 the first worker gets 8 examples, the second 7; held out are two and a half.
    on = keras.tree.map_structure(lambda array: array[:38], make_data())
    # A probe in each step: one function to be traced.
    affinity = tag_keras.LookaheadAffinity(every=1, baseline=True, on=on)
    model = make_model(strategy, momentum, affinity)
    return results(model, model.fit(make_dataset(15), epochs=2, shuffle=False, verbose=0))


def average(strategy):
    """Of 3 on the first worker and 13 on the second."""
    return {"mean": mean_over_workers(strategy, 3.0 + 10.0 * own_index())}


CASES = {
    "average": average,
    "momentum": train_and_evaluate,
    "own_part": train_on_own_part,
    "arrays": train_on_arrays,
    "apart": start_apart,
    "held_out": probe_held_out,
}


class Kill(keras.callbacks.Callback):
    """Kills this process in the middle of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def train_with_backup(strategy, folder=None, victim=None):
    """Four epochs, in each of which the probes are at other steps."""
    affinity = tag_keras.CosineAffinity(every=3)
    model = make_model(strategy, momentum, affinity)
    callbacks = []
    if folder:
        callbacks += [keras.callbacks.BackupAndRestore(folder / "backup", double_checkpoint=True)]
    callbacks += [Kill()] if own_index() == victim else []
    history = model.fit(make_dataset(), epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
    return results(model, history)


def task():
    return json.loads(os.environ.get("TF_CONFIG", "{}"))


def own_index():
    return task().get("task", {}).get("index", 0)


def number_of_workers():
    return len(task().get("cluster", {}).get("worker", [None]))


def main(folder, kind, argument=None):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    folder = pathlib.Path(folder)
    if kind == "cases":
        found = {name: CASES[name](strategy) for name in argument.split(",")}
    else:
        found = train_with_backup(strategy, folder, argument and int(argument))
    (folder / f"{own_index()}.pickle").write_bytes(pickle.dumps(found))
