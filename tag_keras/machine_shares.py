"""How processes that train at once share the cores and the GPUs of one machine."""

import os
import shutil
import subprocess


def machine_shares(processes: int) -> list[dict[str, str]]:
    """Variables of the environment for each of so many processes at once.

    Cores are divided evenly. Several GPUs are given to the processes in turn; processes that
    share one take its memory as they need it. What the user has set stays.
    """
    shares: list[dict[str, str]] = [{} for _ in range(processes)]
    gpus = visible_gpus() if processes > 1 else []
    for index, share in enumerate(shares):
        # Its notices would come before the process can send them to its log.
        share["TF_CPP_MIN_LOG_LEVEL"] = "2"
        if processes > 1:
            threads = str(max(1, _cores() // processes))
            share["OMP_NUM_THREADS"] = threads
            share["TF_NUM_INTRAOP_THREADS"] = threads
        if gpus and processes > len(gpus):
            share["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        for name in set(share) & set(os.environ):
            del share[name]
        if len(gpus) > 1:
            share["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return shares


def visible_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow would see, found out without it: it would take them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA stops at the first that there is not.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listed = subprocess.run(
        [command, "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    return listed.stdout.split() if listed.returncode == 0 else []


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
