"""Makes torchjd_trajectories.json: 20 steps by the scalarizers of TorchJD (Quinton and Rey).

    python tests/loss_weighting/torchjd_trajectories.py

Three tasks share a vector of four weights, which begins with `START`. The prediction of task i is
its product with the input x[:, i], and its loss is the mean square error. Gradient descent with the
rate `RATE` moves the vector, in float64. Where TorchJD takes a mean or weights with the sum 1, its
loss is multiplied by the number of tasks. TorchJD has no DB-MTL: its sum of logarithms is written
here. Random weights depend on the generator, and are not here.
"""

import importlib.metadata
import json
import pathlib

import numpy as np

TASKS, SIZE, STEPS, BATCH = 3, 4, 20, 5
START, RATE, MU = [0.5, -0.25, 1.0, 0.0], 0.02, 0.5


def make_data():
    """Inputs (STEPS, BATCH, TASKS, SIZE) and labels (STEPS, BATCH, TASKS), quarters of integers."""
    rng = np.random.default_rng(0)
    x = rng.integers(-6, 7, size=(STEPS, BATCH, TASKS, SIZE)) / 4
    # Losses of different size.
    y = x @ np.array([1.0, 2.0, -1.0, 0.5]) * np.array([1.0, -1.0, 4.0])
    return x, np.round(4 * (y + rng.normal(size=y.shape))) / 4


def main():
    import torch
    from torchjd import scalarization

    x, y = (torch.tensor(one) for one in make_data())
    famo = scalarization.FAMO(TASKS).double()
    learnt = scalarization.IMTLL(TASKS).double()
    smooth = scalarization.STCH(MU, torch.ones(TASKS, dtype=torch.float64))
    geometric = scalarization.GeometricMean()
    joint_losses = {
        "GLS": lambda losses: TASKS * geometric(losses),
        "STCH": lambda losses: TASKS * smooth(losses),
        "DBMTL": lambda losses: torch.log(losses + 1e-8).sum(),
        "IMTLL": learnt,
        "FAMO": lambda losses: TASKS * famo(losses),
    }
    results = {}
    for name, joint in joint_losses.items():
        vector = torch.tensor(START, dtype=torch.float64, requires_grad=True)
        trained = [vector, *(learnt.parameters() if name == "IMTLL" else ())]
        optimizer, found = torch.optim.SGD(trained, lr=RATE), []
        for inputs, labels in zip(x, y, strict=True):

            def losses(inputs=inputs, labels=labels, vector=vector):
                return ((inputs @ vector - labels) ** 2).mean(dim=0)

            optimizer.zero_grad()
            joint(losses()).backward()
            optimizer.step()
            if name == "FAMO":
                famo.update(losses().detach())
            found.append(vector.tolist())
        results[name] = found
    versions = {name: importlib.metadata.version(name) for name in ("torchjd", "torch", "numpy")}
    content = {
        "made_by": "tests/loss_weighting/torchjd_trajectories.py",
        "versions": versions,
        "x": x.tolist(),
        "y": y.tolist(),
        "vectors": results,
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
