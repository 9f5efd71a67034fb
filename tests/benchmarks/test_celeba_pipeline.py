"""The benchmark of the input pipeline: that both ways give the same images, and that it runs."""

import forks
import numpy as np
import pytest

from benchmarks import celeba_pipeline
from celeba.data import TASKS


def test_both_ways_give_the_same_images_and_labels(tmp_path):
    celeba_pipeline.make_files(tmp_path, 10)
    celeba_pipeline.write_records(tmp_path, tmp_path / "records")
    notebook = celeba_pipeline.notebook_batches(tmp_path / "records", 10, 4)
    found = {
        image.tobytes(): [int(labels[task][index]) for task in TASKS]
        for labels, images in notebook.as_numpy_iterator()
        for index, image in enumerate(images)
    }
    for kind, exact in ((celeba_pipeline.ON_DISC, True), (celeba_pipeline.IN_MEMORY, False)):
        ours = celeba_pipeline.our_batches(tmp_path, kind, 4)
        pairs = [
            (image, [int(labels[task][index]) for task in TASKS])
            for images, labels in ours.as_numpy_iterator()
            for index, image in enumerate(images)
        ]
        assert len(pairs) == len(found) == 10
        if exact:
            assert {image.tobytes(): labels for image, labels in pairs} == found
        else:
            originals = np.stack([np.frombuffer(one, np.float32) for one in found])
            for image, labels in pairs:
                distances = np.abs(originals - image.ravel()).max(axis=1)
                assert distances.min() <= 0.5 / 255 + 1e-6
                assert list(found.values())[distances.argmin()] == labels


def test_images_are_about_as_large_as_those_of_celeba():
    # img_align_celeba.zip has 1,443,490,838 bytes for 202,599 images.
    sizes = [len(celeba_pipeline.make_jpeg(seed)) for seed in range(5)]
    assert np.mean(sizes) == pytest.approx(1_443_490_838 / 202_599, rel=0.25)


@pytest.mark.slow
def test_the_benchmark_prints_a_row_for_each_kind(capsys, monkeypatch, tmp_path):
    def run_forked(module, options):
        log = tmp_path / "printed"
        log.write_text("")
        assert forks.run(forks.run_module, module, *options, log=log) == 0
        return log.read_text()

    def make_few_files(folder, number):
        make_files(folder, min(number, 40))

    make_files = celeba_pipeline.make_files
    monkeypatch.setattr(celeba_pipeline, "make_files", make_few_files)
    monkeypatch.setattr(celeba_pipeline, "run_apart", run_forked)
    monkeypatch.setattr(celeba_pipeline, "CELEBA", {"train": 200, "validation": 20, "test": 20})
    celeba_pipeline.main(["--images=16", "--batch_size=8", "--turns=2"])
    lines = capsys.readouterr().out.splitlines()
    assert not any("Decoding" in line for line in lines)
    for kind in (*celeba_pipeline.PIXELS, celeba_pipeline.NOTEBOOK):
        assert sum(line.startswith(f"| {kind} ") for line in lines) == (
            2 if kind in celeba_pipeline.PIXELS else 1
        )
