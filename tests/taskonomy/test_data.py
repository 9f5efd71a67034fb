"""Taskonomy's pipeline on small files in the real formats."""

import copy
import os
import pickle
import re
import shutil
import struct
import tarfile
import threading
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from taskonomy_files import BUILDINGS, SPLITS, VIEWS, make_files, make_pixels, write

from taskonomy import scan
from taskonomy.data import Taskonomy, _load
from taskonomy.domains import DOMAINS, TASKS
from taskonomy.index import make_index
from taskonomy.layouts import LAYOUTS

FILES = make_files()
FOLDERS = LAYOUTS[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("taskonomy"), FILES, FOLDERS)


@pytest.fixture(scope="module")
def of_folder(folder):
    return examples(data_of(folder))


def data_of(root, **options):
    return Taskonomy(root, **{"tasks": "sdntke", "buildings": SPLITS, "image_size": 32, **options})


def examples(data, split="train"):
    """All examples of a split, in order: images (N, H, W, 3) and labels by task."""
    batches = list(data.batches(split, 2))
    images = np.concatenate([x for x, _ in batches])
    return images, {task: np.concatenate([y[task] for _, y in batches]) for task in data.tasks}


def expected(domain, building, view, flipped=False):
    """The label without resizing, from the formula of Standley et al.: (value - offset) / scale."""
    number = BUILDINGS.index(building)

    def pixels(name):
        values = make_pixels(name, 32, [number, *view, [*DOMAINS].index(name)])
        return (values[:, ::-1] if flipped else values).astype("float64")

    if domain == "segment_semantic":
        return pixels(domain)[:, :, 0]
    numbers = {
        "rgb": (0, 255),
        "depth_zbuffer": (1500, 1000),
        "normal": (127.5, 127.5),
        "edge_texture": (718, 1070),
        "keypoints2d": (50, 100),
        "edge_occlusion": (56.0248, 239.1265),
    }
    offset, scale = numbers[domain]
    values = (pixels(domain) - offset) / scale
    if domain == "normal" and flipped:
        values[:, :, 0] *= -1
    if domain in ("depth_zbuffer", "normal", "edge_occlusion"):
        values = np.where(pixels("depth_zbuffer") < 8192, values, np.nan)
    return values


def test_labels_are_the_normalised_values_of_the_right_files(folder, of_folder):
    data = data_of(folder)
    assert data.sizes == {"train": 6, "validation": 3, "test": 3}
    images, labels = of_folder
    assert labels["segment_semantic"].dtype == np.int32
    # In the order of the names of files: point_10 comes before point_1_.
    order = [(building, view) for building in SPLITS["train"] for view in ((10, 0), (1, 0), (1, 1))]
    for row, (building, view) in enumerate(order):
        np.testing.assert_allclose(images[row], expected("rgb", building, view), atol=1e-6)
        for task in data.tasks:
            np.testing.assert_allclose(
                labels[task][row], expected(task, building, view), rtol=1e-5, atol=1e-5
            )
    assert 0.2 < np.isnan(labels["normal"]).mean() < 0.3
    assert not np.isnan(labels["edge_texture"]).any()
    assert not np.isnan(labels["keypoints2d"]).any()


@pytest.mark.parametrize("pattern", LAYOUTS)
def test_all_layouts_give_the_same_examples(pattern, of_folder, tmp_path, capsys):
    data = data_of(write(tmp_path, FILES, pattern))
    data.prepare()
    assert f"{tmp_path} has folders {pattern}." in capsys.readouterr().out
    images, labels = examples(data)
    np.testing.assert_array_equal(images, of_folder[0])
    for task in data.tasks:
        np.testing.assert_array_equal(labels[task], of_folder[1][task])
    for split in ("validation", "test"):
        assert data.sizes[split] == 3


def test_resizing_is_that_of_the_original_but_for_classes_and_unknown_pixels(folder):
    # Half as large, a triangle filter of two pixels to both sides: weights 1, 3, 3, 1 over 8.
    data = data_of(folder, image_size=16)
    images, labels = examples(data)
    first = ("allensville", (10, 0))

    def halved(values):
        for axis in (0, 1):
            parts = np.moveaxis(values, axis, 0)
            rows = [
                parts[2 * i - 1] + 3 * parts[2 * i] + 3 * parts[2 * i + 1] + parts[2 * i + 2]
                for i in range(1, 15)
            ]
            values = np.moveaxis(np.stack(rows) / 8, 0, axis)
        return values

    np.testing.assert_allclose(images[0, 1:15, 1:15], halved(expected("rgb", *first)), atol=1e-5)
    texture = halved(expected("edge_texture", *first))
    np.testing.assert_allclose(labels["edge_texture"][0, 1:15, 1:15], texture, atol=1e-4)
    # NaN where any of the pixels is.
    depth = halved(expected("depth_zbuffer", *first))
    np.testing.assert_allclose(labels["depth_zbuffer"][0, 1:15, 1:15], depth, atol=1e-4)
    classes = expected("segment_semantic", *first)
    assert (labels["segment_semantic"][0] == classes[1::2, 1::2]).all()


def test_a_flip_is_that_of_the_image_and_all_labels(folder):
    data = data_of(folder)
    ((images, labels),) = data.batches("train", 6, shuffle=True)
    flips = set()
    for row, image in enumerate(images.numpy()):
        matches = [
            (building, view, flipped)
            for building in SPLITS["train"]
            for view in VIEWS
            for flipped in (False, True)
            if np.allclose(image, expected("rgb", building, view, flipped), atol=1e-6)
        ]
        ((building, view, flipped),) = matches
        flips.add(flipped)
        for task in data.tasks:
            wanted = expected(task, building, view, flipped)
            np.testing.assert_allclose(labels[task][row], wanted, rtol=1e-5, atol=1e-5)
    assert flips == {False, True}


def test_without_augmentation_a_shuffled_pass_has_the_images_as_they_are(folder, of_folder):
    plain, _ = of_folder
    ((images, _),) = data_of(folder, augment=False).batches("train", 6, shuffle=True)
    for image in images.numpy():
        assert (image == plain).all(axis=(1, 2, 3)).sum() == 1


def test_a_crop_is_that_of_the_image_and_all_labels(tmp_path):
    # All domains hold the same ramp, so that labels of the same place are the same value.
    contents = {}
    ramp = np.add.outer(np.arange(32), 3 * np.arange(32))[:, :, None]
    for domain, facts in DOMAINS.items():
        pixels = np.repeat(ramp, facts.channels, 2).astype(f"uint{facts.bits}")
        contents["hanson", domain, (0, 0)] = tf.io.encode_png(pixels).numpy()
    lists = {"train": ["hanson"]}
    data = data_of(write(tmp_path, contents, FOLDERS), buildings=lists, min_crop=0.5)
    keras.utils.set_random_seed(0)
    means, spreads = set(), set()
    for images, labels in data.batches("train", 1, shuffle=True).repeat(8):
        values = images.numpy()[..., 0] * 255
        means.add(round(float(values.mean()), 3))
        np.testing.assert_allclose(values, labels["depth_zbuffer"][..., 0] * 1000 + 1500, atol=1e-2)
        flipped = values[0, 0, 0] > values[0, 0, -1]
        normals = labels["normal"].numpy() * 127.5
        np.testing.assert_allclose(normals[..., 1] + 127.5, values, atol=1e-2)
        sign = -1 if flipped else 1
        np.testing.assert_allclose(sign * normals[..., 0] + 127.5, values, atol=1e-2)
        assert values.min() >= 0
        spreads.add(values.max() - values.min())
    assert len(means) > 4
    # A side from a half to the whole, of which the ramp grows by 4 with each pixel.
    assert 4 * 15 <= min(spreads) < max(spreads) <= 4 * 31


def test_the_seed_decides_the_order_and_the_flips(folder):
    def passes():
        keras.utils.set_random_seed(3)
        batches = data_of(folder, tasks="n").batches("train", 3, shuffle=True)
        return [[x.numpy() for x, _ in batches] for _ in range(2)]

    first, second = passes(), passes()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_incomplete_and_unreadable_samples_are_left_out_and_named(tmp_path, capsys):
    contents = dict(FILES)
    del contents["hanson", "normal", (1, 0)]
    cut = ("hanson", "depth_zbuffer", (1, 1))
    contents[cut] = contents[cut][:-20]
    contents["darden", "rgb", (1, 0)] = b""
    contents["darden", "rgb", (1, 1)] = b"<html>404 not found, this is a page of a server</html>"
    eight_bits = tf.io.encode_png(np.zeros((32, 32, 1), "uint8")).numpy()
    contents["uvalda", "edge_texture", (1, 1)] = eight_bits
    write(tmp_path, contents, FOLDERS)
    data = data_of(tmp_path)
    data.prepare()
    printed = capsys.readouterr().out
    assert data.sizes == {"train": 4, "validation": 1, "test": 2}
    assert "train: 4 images, 2/2 buildings." in printed
    assert "Left out as incomplete: 1: hanson/point_1_view_0 lacks normal." in printed
    assert "Left out as unreadable: 4: " in printed
    assert f"{tmp_path}/depth_zbuffer/hanson, point_1_view_1.png: it is cut off" in printed
    assert "point_1_view_0.png: it is empty" in printed
    assert "point_1_view_1.png: it is no PNG file" in printed
    assert "it has 8 bits per channel instead of 16" in printed
    kept = [(building, view) for building in SPLITS["train"] for view in ((10, 0), (1, 0), (1, 1))]
    kept = [one for one in kept if one not in (("hanson", (1, 0)), ("hanson", (1, 1)))]
    _, labels = examples(data)
    for row, (building, view) in enumerate(kept):
        wanted = expected("depth_zbuffer", building, view)
        np.testing.assert_allclose(labels["depth_zbuffer"][row], wanted, rtol=1e-5)
    # All names, however many there are.
    (names,) = (tmp_path / ".tag_keras").glob("*.txt")
    assert len(names.read_text().splitlines()) == 5


DAMAGE = {
    "checksum": "the checksum of its IDAT chunk is wrong",
    "stream": "it cannot be decoded",
}


def damaged(key, what):
    """A whole file in which one byte of the pixels is wrong; with "stream", its checksum agrees."""
    data = bytearray(FILES[key])
    data[60] ^= 1
    if what == "stream":
        end = 41 + int.from_bytes(data[33:37], "big")
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[37:end]))
    return {**FILES, key: bytes(data)}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_found_when_it_is_read_and_has_no_label(tmp_path, of_folder, capfd, what):
    contents = damaged(("allensville", "normal", (1, 0)), what)
    data = data_of(write(tmp_path, contents, FOLDERS))
    assert data.sizes["train"] == 6
    for _ in range(2):
        images, labels = examples(data)
        assert (images[1] == 0).all()
        assert (labels["segment_semantic"][1] == 0).all()
        others = [0, 2, 3, 4, 5]
        np.testing.assert_array_equal(images[others], of_folder[0][others])
        for task in data.tasks:
            np.testing.assert_array_equal(labels[task][others], of_folder[1][task][others])
            assert task == "segment_semantic" or np.isnan(labels[task][1]).all()
    # Named, and once only.
    path = f"{tmp_path}/normal/allensville, point_1_view_0.png"
    message = f"Left out: {path}: {DAMAGE[what]}\n"
    assert capfd.readouterr().err.count(message) == 1


def test_the_number_of_batches_is_known(folder):
    data = data_of(folder)
    assert data.batches("train", 4).cardinality() == 2
    batches = data.batches("train", 4, shuffle=True)
    assert batches.cardinality() == 1
    image, labels = batches.element_spec
    assert image.shape == (4, 32, 32, 3)
    assert labels["normal"].shape == (4, 32, 32, 3)
    assert labels["segment_semantic"].shape == (4, 32, 32)


@pytest.mark.parametrize("what", DAMAGE)
def test_reading_all_contents_finds_damaged_files_before(tmp_path, capsys, what):
    contents = damaged(("allensville", "normal", (1, 0)), what)
    data = data_of(write(tmp_path, contents, FOLDERS), verify="contents")
    data.prepare()
    assert data.sizes["train"] == 5
    assert DAMAGE[what] in capsys.readouterr().out


def test_a_line_shows_how_many_buildings_have_been_looked_at(tmp_path, capsys):
    # Of the buildings that are there.
    lists = {split: [*names, f"missing_{split}"] for split, names in SPLITS.items()}
    data_of(write(tmp_path, FILES, FOLDERS), buildings=lists).prepare()
    assert re.search(r"^Looking for samples: 4/4 in \d+ s$", capsys.readouterr().err, re.M)


def test_a_tar_file_that_is_cut_off_gives_what_is_before(tmp_path, capsys):
    write(tmp_path, FILES, "{building}_{domain}.tar")
    path = tmp_path / "hanson_normal.tar"
    with tarfile.open(path) as tar:
        _, second, _ = tar.getmembers()
    os.truncate(path, second.offset_data + 100)
    data = data_of(tmp_path)
    data.prepare()
    printed = capsys.readouterr().out
    assert data.sizes["train"] == 4
    # The first member is whole, the second is cut off, and the third is not seen.
    assert "hanson/point_10_view_0 lacks normal" in printed
    assert f"{path}, point_1_view_1_domain_normal.png: it is cut off" in printed
    assert f"{path}: unexpected end of data" in printed
    _, labels = examples(data)
    wanted = expected("normal", "hanson", (1, 0))
    np.testing.assert_allclose(labels["normal"][3], wanted, rtol=1e-5)


def test_only_the_first_images_of_a_building_are_for_evaluation(folder):
    data = data_of(folder, evaluation_limit=2)
    assert data.sizes == {"train": 6, "validation": 2, "test": 2}
    images, _ = examples(data, "test")
    np.testing.assert_allclose(images[0], expected("rgb", "uvalda", (10, 0)), atol=1e-6)
    assert data_of(folder, evaluation_limit=None).sizes["test"] == 3


def test_files_of_tasks_that_are_not_asked_for_are_not_needed(tmp_path):
    only = {key: data for key, data in FILES.items() if key[1] in ("rgb", "keypoints2d")}
    data = data_of(write(tmp_path, only, FOLDERS), tasks="k")
    _, labels = examples(data)
    assert list(labels) == ["keypoints2d"]


def test_the_index_is_made_once_and_again_when_files_come(tmp_path):
    few = {key: data for key, data in FILES.items() if key[0] != "hanson"}
    write(tmp_path, few, FOLDERS)
    data = data_of(tmp_path, cache_dir=tmp_path / "cache")
    assert data.sizes["train"] == 3
    (path,) = (tmp_path / "cache").glob("index-*.npz")
    before = path.stat().st_mtime_ns
    assert data.sizes["train"] == 3
    assert path.stat().st_mtime_ns == before
    write(tmp_path, FILES, FOLDERS)
    assert data.sizes["train"] == 6
    shutil.rmtree(tmp_path / "rgb" / "hanson")
    assert data.sizes["train"] == 3


@pytest.mark.parametrize("verify", ["ends", "contents"])
def test_files_that_are_repaired_in_their_place_are_taken_in(verify, tmp_path, capsys, monkeypatch):
    keys = [("hanson", "normal", (1, 0)), ("darden", "rgb", (1, 1))]
    contents = FILES | dict.fromkeys(keys, b"")
    data = data_of(write(tmp_path, contents, FOLDERS), verify=verify)
    data.prepare()
    assert data.sizes == {"train": 5, "validation": 2, "test": 3}
    before = data.fingerprint
    folder = tmp_path / "normal" / "hanson"
    time = folder.stat().st_mtime_ns
    path = folder / "point_1_view_0.png"
    path.write_bytes(FILES[keys[0]])
    # As by a copy that keeps times.
    os.utime(path, (0, 0))
    assert folder.stat().st_mtime_ns == time
    capsys.readouterr()
    data.prepare()
    assert "Left out as unreadable: 1: " in capsys.readouterr().out
    assert data.sizes == {"train": 6, "validation": 2, "test": 3}
    assert data.fingerprint != before
    _, labels = examples(data)
    wanted = expected("normal", "hanson", (1, 0))
    np.testing.assert_allclose(labels["normal"][4], wanted, rtol=1e-5, atol=1e-5)
    # Only the other one is looked at again.
    monkeypatch.setattr("taskonomy.data.make_index", None)
    looked_at, is_repaired = [], scan.is_repaired
    monkeypatch.setattr(
        "taskonomy.index.is_repaired",
        lambda file, verify: looked_at.append(file.name) or is_repaired(file, verify),
    )
    data.prepare()
    assert looked_at == ["point_1_view_1.png"]


def test_a_split_without_any_image_is_refused_before_any_training(folder, tmp_path):
    lists = {**SPLITS, "test": ["byers", "tyler"]}
    wanted = (
        r"The split 'test' of the buildings .* has no image in .*: of the 2 asked for \(byers, "
        r"tyler\) there are 0 \(none\), of all buildings 4 \(allensville, darden, hanson, uvalda"
        r"\)\. Get the files of one of them, or give other buildings\."
    )
    with pytest.raises(ValueError, match=wanted):
        data_of(folder, buildings=lists, cache_dir=tmp_path).prepare()
    lists = {"train": ["hanson"], "test": ["uvalda"]}
    with pytest.raises(ValueError, match=r"'validation' .* of the 0 asked for \(none\) there"):
        data_of(folder, buildings=lists, cache_dir=tmp_path).prepare()
    # There is a building, and none of its samples is complete.
    unreadable = {key: b"" for key in FILES if key[:2] == ("darden", "normal")}
    root = write(tmp_path / "data", FILES | unreadable, FOLDERS)
    with pytest.raises(ValueError, match=r"1 asked for \(darden\) there are 1 \(darden\), of all"):
        data_of(root).prepare()


def test_the_fingerprint_is_that_of_the_samples_wherever_they_are(folder, tmp_path):
    first = data_of(folder).fingerprint
    assert len(first) == 12
    assert int(first, 16) >= 0
    for number, pattern in enumerate(LAYOUTS[1:]):
        assert data_of(write(tmp_path / str(number), FILES, pattern)).fingerprint == first
    assert data_of(folder, image_size=16, verify="contents").fingerprint == first
    swapped = {**SPLITS, "validation": SPLITS["test"], "test": SPLITS["validation"]}
    fewer = {**SPLITS, "train": ["hanson"]}
    others = [
        data_of(folder, buildings=swapped),
        data_of(folder, buildings=fewer),
        # Another building, with samples of the same names.
        data_of(folder, buildings={**fewer, "train": ["allensville"]}),
        data_of(folder, evaluation_limit=2),
    ]
    # One sample of one building, or of another.
    for number, building in enumerate(("hanson", "uvalda")):
        some = {key: data for key, data in FILES.items() if key[::2] != (building, (1, 0))}
        others.append(data_of(write(tmp_path / f"some {number}", some, FOLDERS)))
    assert len({first, *(data.fingerprint for data in others)}) == 7


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    write(tmp_path / "data", FILES, FOLDERS)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data_of("~/data").prepare()
    assert (tmp_path / "data" / ".tag_keras").is_dir() and not (tmp_path / "~").exists()


def test_of_several_processes_one_makes_the_index(tmp_path, monkeypatch, capsys):
    # Hosts that train together begin at the same time. Locks hold threads apart, too.
    data, made, others = data_of(write(tmp_path, FILES, FOLDERS)), [], []

    def while_another_waits(*args):
        made.append(args)
        others.append(threading.Thread(target=data.prepare))
        others[0].start()
        others[0].join(0.3)
        assert others[0].is_alive()
        return make_index(*args)

    monkeypatch.setattr("taskonomy.data.make_index", while_another_waits)
    data.prepare()
    others[0].join()
    assert len(made) == 1
    assert "Waiting for another process that looks for samples" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_told_before_the_search(tmp_path, monkeypatch):
    folder = write(tmp_path / "data", FILES, FOLDERS)
    (tmp_path / "file").touch()
    monkeypatch.setattr("taskonomy.data.make_index", None)
    with pytest.raises(OSError, match=r"cannot be written to .*file \(.* Give another `cache_dir`"):
        data_of(folder, cache_dir=tmp_path / "file").prepare()


def test_a_full_disc_leaves_no_index(tmp_path, monkeypatch):
    data = data_of(write(tmp_path, FILES, FOLDERS))
    wanted = r"cannot be written to .*No space left on device.*\)\. Give another `cache_dir`"

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match=wanted):
        patch.setattr(np, "savez", fail)
        data.prepare()
    assert not list((tmp_path / ".tag_keras").glob("index-*.npz"))
    assert data.sizes["train"] == 6


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5])
def test_a_damaged_index_is_named(folder, tmp_path, part):
    data = data_of(folder, cache_dir=tmp_path)
    data.prepare()
    (path,) = tmp_path.glob("index-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    _load.cache_clear()
    with pytest.raises(ValueError, match=rf"{path.name} is not an index of samples .* Delete it"):
        data.prepare()
    path.unlink()
    data.prepare()
    assert path.exists()


def test_it_can_be_given_to_another_process(folder):
    data = data_of(folder)
    data.prepare()
    for again in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert again == data
        assert again.sizes == data.sizes


def test_the_layout_with_the_most_buildings_is_used_alone(tmp_path, capsys):
    some = {key: data for key, data in FILES.items() if key[0] == "hanson"}
    write(tmp_path, some, "{building}_{domain}.tar")
    write(tmp_path, FILES, "{building}/{domain}")
    data = data_of(tmp_path)
    data.prepare()
    assert data.sizes["train"] == 6
    printed = capsys.readouterr().out
    assert "Not used, because it has no more buildings: {building}_{domain}.tar." in printed
    tars = data_of(tmp_path, layout="{building}_{domain}.tar")
    assert tars.sizes == {"train": 3, "validation": 0, "test": 0}


def test_errors_of_data_that_are_not_there(folder, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no folder .*nowhere with Taskonomy\. To download"
    ):
        data_of(tmp_path / "nowhere").prepare()
    looked = r"Looked for: rgb/<building>/point_0_view_0_domain_rgb.png, <building>/rgb/.*omnidata"
    with pytest.raises(FileNotFoundError, match=looked):
        data_of(tmp_path).prepare()
    (tmp_path / "rgb__taskonomy__hanson.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="unpack them with gunzip"):
        data_of(tmp_path).prepare()
    without = {key: data for key, data in FILES.items() if key[1] != "depth_zbuffer"}
    write(tmp_path, without, "{building}/{domain}")
    wanted = "lacks depth_zbuffer, which the tasks need .*Looked for: <building>/depth_zbuffer/"
    with pytest.raises(ValueError, match=wanted):
        data_of(tmp_path, tasks="n").prepare()
    assert data_of(tmp_path, tasks="k").sizes["train"] == 6
    lists = {"train": ["tyler", "byers"]}
    wanted = "none of the 2 buildings of .*, such as tyler, byers. It has 4, such as allensville"
    with pytest.raises(ValueError, match=wanted):
        data_of(folder, buildings=lists).prepare()
    with pytest.raises(ValueError, match="`layout` should be one of"):
        data_of(folder, layout="flat").prepare()


def test_errors_of_no_usable_sample(tmp_path):
    contents = dict.fromkeys(FILES, b"")
    with pytest.raises(ValueError, match="no image with readable files of all domains: 0 are inco"):
        data_of(write(tmp_path, contents, FOLDERS)).prepare()
    assert not list((tmp_path / ".tag_keras").glob("index-*"))


def test_errors_of_options(folder):
    with pytest.raises(ValueError, match="`tasks` should be some of Taskonomy's, each once: s seg"):
        data_of(folder, tasks="sdx")
    with pytest.raises(ValueError, match="`image_size` should be at least 1"):
        data_of(folder, image_size=0)
    with pytest.raises(ValueError, match="`evaluation_limit` should be at least 1"):
        data_of(folder, evaluation_limit=0)
    with pytest.raises(ValueError, match=r"`min_crop` should be in \(0, 1\]"):
        data_of(folder, min_crop=0)
    with pytest.raises(ValueError, match='`verify` should be "ends" or "contents"'):
        data_of(folder, verify="all")
    with pytest.raises(ValueError, match="`split` should be one of train, validation, test"):
        data_of(folder).batches("val", 2)
    with pytest.raises(ValueError, match="`batch_size` should be at least 1"):
        data_of(folder).batches("train", 0)
    with pytest.raises(ValueError, match=r"has 6 images in .* should have at least 7"):
        data_of(folder).batches("train", 7, shuffle=True)
    some = data_of(folder, buildings={"train": ["hanson"], "test": ["byers"]})
    with pytest.raises(ValueError, match=r"The split 'test' .* has 0 images"):
        some.batches("test", 1)


def test_the_papers_tasks_are_the_default(folder):
    assert Taskonomy(folder).tasks == TASKS
    assert Taskonomy(folder).buildings == "original"
    assert os.fspath(Taskonomy(folder).data_dir) == os.fspath(folder)
