"""What a run of `tag_keras.experiment` has left in its folder."""

import json

import keras


def contents(folder):
    """All files that hold results, without the seconds that the training took."""
    rows = json.loads((folder / "results.json").read_text())
    rows = [{**row, "seconds": 0} for row in rows]
    served = json.loads((folder / "served.json").read_text())
    # A file of Keras holds the time at which it was written.
    served["checksum"] = ""
    names = ("affinity.json", "groups.json")
    texts = [(folder / name).read_text() for name in names]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    weights = keras.models.load_model(folder / "grouped.keras").get_weights()
    return rows, served, *texts, files, [weight.tolist() for weight in weights]
