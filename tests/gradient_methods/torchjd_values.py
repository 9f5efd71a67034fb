"""Makes torchjd_values.json, the results of TorchJD (Quinton and Rey) that tests compare with.

    python tests/gradient_methods/torchjd_values.py

It needs TorchJD with cvxpy, quadprog and ecos. All is computed in float64. Gradients are integers
times powers of 2, which float32 holds exactly. TorchJD's MGDA stops early, as do its CAGrad and its
NashMTL on more than three tasks: these are left out, and tests check the conditions of optimality
in their place. Where all gradients are one and the same, its NashMTL falls
back to the plain sum. It gives tasks without a gradient a part; here they are not among the cases.
"""

import importlib.metadata
import json
import pathlib

import numpy as np

RANDOM = {2: 3, 3: 4, 6: 10, 12: 30, 40: 120}
BETA = 0.3


def make_cases():
    """Gradients (T, P) by case: random ones, the example of TorchJD's manual, and special ones."""
    rng = np.random.default_rng(0)
    cases = {}
    for tasks, size in RANDOM.items():
        lengths = 2.0 ** rng.integers(-3, 4, size=(tasks, 1))
        cases[f"random {tasks}"] = rng.integers(-9, 10, size=(tasks, size)) * lengths
    return {
        **cases,
        "manual": np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]),
        "equal": np.array([[3.0, 4.0]] * 3),
        "opposite": np.array([[1.0, 2.0], [-1.0, -2.0]]),
        "one": np.array([[3.0, 4.0]]),
    }


def make_vaccine_steps():
    """Steps of GradVac: gradients, the orders in which each meets the others, and the result."""
    import torch
    from torchjd import aggregation

    rng = np.random.default_rng(1)
    method, tasks, steps = aggregation.GradVac(beta=BETA), 4, []
    for _ in range(5):
        rows = rng.integers(-6, 13, size=(tasks, 6))
        orders = [rng.permutation(tasks - 1) for _ in range(tasks)]
        draws = iter(orders)
        torch.randperm = lambda *_, draws=draws, **__: torch.tensor(next(draws))
        result = method(torch.tensor(rows, dtype=torch.float64)).tolist()
        others = [[j for j in range(tasks) if j != i] for i in range(tasks)]
        steps.append(
            {
                "gradients": rows.tolist(),
                "orders": [[others[i][k] for k in order] for i, order in enumerate(orders)],
                "result": result,
            }
        )
    return steps


def main():
    import torch
    from torchjd import aggregation

    cases, results = make_cases(), {}
    for name, rows in cases.items():
        tasks = len(rows)
        methods = {
            "IMTLG": aggregation.IMTLG(),
            "AlignedMTL": aggregation.AlignedMTL(),
            "DualProj": aggregation.DualProj(),
            "ConFIG": aggregation.ConFIG(),
            "FairGrad(alpha=2.0)": aggregation.FairGrad(2.0),
            "FairGrad(alpha=0.5)": aggregation.FairGrad(0.5),
        }
        if tasks <= 3:
            methods["CAGrad(c=0.4)"] = aggregation.CAGrad(0.4)
        if tasks <= 3 and name not in ("equal", "one"):
            methods["NashMTL"] = aggregation.NashMTL(tasks, max_norm=1e30)
        found = {}
        for method, aggregator in methods.items():
            result = aggregator(torch.tensor(rows)).numpy()
            # Rounding leaves a little of opposite gradients.
            found[method] = np.where(np.abs(result) < 1e-9, 0.0, result).tolist()
        results[name] = {"gradients": rows.tolist(), "results": found}
    versions = {
        name: importlib.metadata.version(name)
        for name in ("torchjd", "torch", "numpy", "cvxpy", "quadprog", "ecos")
    }
    content = {
        "made_by": "tests/gradient_methods/torchjd_values.py",
        "versions": versions,
        "cases": results,
        "GradVac": {"beta": BETA, "steps": make_vaccine_steps()},
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
