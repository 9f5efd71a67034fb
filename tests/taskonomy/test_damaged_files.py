"""Files of Taskonomy that cannot be read: left out, counted and named, whatever is wrong."""

import io
import os
import random
import struct
import tarfile

import numpy as np
import pytest
from random_edits import edit_bytes
from taskonomy_files import SPLITS, make_files, write

from taskonomy.data import Taskonomy
from taskonomy.index_file import load_index

FILES = make_files(domains=("rgb", "keypoints2d"))
TAR = "{building}_{domain}.tar"
KEYPOINTS = "keypoints2d"


def prepare(root):
    data = Taskonomy(root, tasks=KEYPOINTS, buildings=SPLITS, image_size=32)
    data.prepare()
    return data


def without(*keys):
    return {key: file for key, file in FILES.items() if key not in keys}


def add(path, info, data=b"", header=None):
    """Appends a member to a tar file, with any header."""
    with tarfile.open(path) as tar:
        tar.getmembers()
        end = tar.offset
    header = info.tobuf(tarfile.GNU_FORMAT) if header is None else header
    padding = b"\x00" * (-len(data) % 512)
    path.write_bytes(path.read_bytes()[:end] + header + data + padding + b"\x00" * 1024)


def member(view, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo("{}/point_{}_view_{}.png".format(KEYPOINTS, *view))
    info.size, info.type = size, kind
    return info


def sparse_header(view, size, stored):
    """The header of a sparse file that has `size` bytes, of which `stored` are in the tar file."""
    header = bytearray(member(view, stored, b"S").tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\x00%011o\x00" % (0, stored)
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    return bytes(header)


def test_numbers_that_are_too_long_are_left_out(tmp_path, capsys):
    """A point beyond int32 in a folder, a view of 5,000 digits in a tar file."""
    for pattern, name in (("{domain}/{building}", "9" * 11), (TAR, "9" * 5000)):
        root = write(tmp_path / str(len(name)), FILES, pattern)
        for domain in ("rgb", KEYPOINTS):
            data = FILES["hanson", domain, (1, 0)]
            if pattern == TAR:
                info = tarfile.TarInfo(f"{domain}/point_1_view_{name}.png")
                info.size = len(data)
                with tarfile.open(root / f"hanson_{domain}.tar", "a") as tar:
                    tar.addfile(info, io.BytesIO(data))
            else:
                (root / domain / "hanson" / f"point_{name}_view_1.png").write_bytes(data)
        assert prepare(root).sizes == {"train": 6, "validation": 3, "test": 3}
        printed = capsys.readouterr().out
        assert "Left out as unreadable: 2: " in printed and "incomplete: 0" in printed
        assert ": its numbers have more than 9 digits" in printed
        assert len(printed) < 1500


@pytest.mark.parametrize("pattern", ["{domain}/{building}", TAR])
def test_a_view_with_two_files_is_left_out(tmp_path, capsys, pattern):
    """Or with three: which one the labels belong to, nobody knows."""
    root = write(tmp_path, FILES, pattern)
    for suffix in ("_domain_rgb (1)", "_domain_rgb (2)"):
        data = FILES["hanson", "rgb", (10, 0)]
        if pattern == TAR:
            info = tarfile.TarInfo(f"rgb/point_1_view_0{suffix}.png")
            info.size = len(data)
            with tarfile.open(root / "hanson_rgb.tar", "a") as tar:
                tar.addfile(info, io.BytesIO(data))
        else:
            (root / "rgb" / "hanson" / f"point_1_view_0{suffix}.png").write_bytes(data)
    data = prepare(root)
    assert data.sizes == {"train": 5, "validation": 3, "test": 3}
    printed = capsys.readouterr().out
    assert "Left out as unreadable: 1: " in printed
    assert "one view has two files, point_1_view_0_domain_rgb" in printed
    # It is left out in the index that is there, too, and looked for no second time.
    data.prepare()
    assert "Looking" not in capsys.readouterr().err


def test_the_last_member_with_a_name_counts(tmp_path):
    root = write(tmp_path, FILES, TAR)
    with tarfile.open(root / "hanson_rgb.tar", "a") as tar:
        data = FILES["hanson", "rgb", (10, 0)]
        info = tarfile.TarInfo("rgb/point_1_view_0_domain_rgb.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    images = np.concatenate([x for x, _ in prepare(root).batches("train", 2)])
    assert len(images) == 6
    # In the order of the names, the view at 1, 0 now has the image of the one at 10, 0.
    assert sum(np.array_equal(one, other) for one in images for other in images) == 6 + 2


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_only_has_the_name_of_a_tar_file_is_refused(tmp_path, kind):
    path = write(tmp_path, FILES, TAR) / f"hanson_{KEYPOINTS}.tar"
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "not_here.tar")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(ValueError, match=f"{path.name} should be a tar file, but is a folder"):
        prepare(tmp_path)


@pytest.mark.parametrize("kind", ["4 TB", "small"])
def test_a_sparse_member_is_left_out(tmp_path, capsys, kind):
    key = ("hanson", KEYPOINTS, (1, 1))
    path = write(tmp_path, without(key), TAR) / f"hanson_{KEYPOINTS}.tar"
    size = 2**42 if kind == "4 TB" else 4096
    add(path, None, b"x" * 512, sparse_header((1, 1), size, 512))
    with tarfile.open(path) as tar:
        assert [one.size for one in tar][-1] == size
    data = prepare(tmp_path)
    assert data.sizes["train"] == 5
    printed = capsys.readouterr().out
    assert "Left out as incomplete: 0." in printed
    assert f"unreadable: 1: {path}, point_1_view_1.png: it is a sparse file." in printed
    # The files before it are read as ever.
    assert np.isfinite(next(iter(data.batches("train", 5)))[0]).all()


def test_a_member_that_claims_to_be_huge_is_left_out(tmp_path, capsys):
    key = ("hanson", KEYPOINTS, (1, 1))
    path = write(tmp_path, without(key), TAR) / f"hanson_{KEYPOINTS}.tar"
    add(path, member((1, 1), 2**45), FILES[key])
    assert prepare(tmp_path).sizes["train"] == 5
    printed = capsys.readouterr().out
    assert f"point_1_view_1.png: it has {2**45} bytes, more than {2**26}" in printed


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        # A long name, of so many bytes.
        (2**45, tarfile.GNUTYPE_LONGNAME),
        (2**62, tarfile.GNUTYPE_LONGNAME),
        # The next header would be at this place.
        (2**80, tarfile.REGTYPE),
        # It would be the header itself, or one before.
        (-512, tarfile.REGTYPE),
        (-1024, tarfile.REGTYPE),
    ],
)
def test_a_header_that_leads_nowhere_ends_its_tar_file(tmp_path, capsys, size, kind):
    key = ("hanson", KEYPOINTS, (1, 1))
    path = write(tmp_path, without(key), TAR) / f"hanson_{KEYPOINTS}.tar"
    add(path, member((5, 5), size, kind))
    assert prepare(tmp_path).sizes["train"] == 5
    printed = capsys.readouterr().out
    assert f"{path}: " in printed and "hanson/point_1_view_1 lacks keypoints2d" in printed


def test_names_of_names_without_end_end_their_tar_file(tmp_path, capsys):
    key = ("hanson", KEYPOINTS, (1, 1))
    path = write(tmp_path, without(key), TAR) / f"hanson_{KEYPOINTS}.tar"
    header = member((5, 5), 0, tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    add(path, None, header=header * 3000)
    assert prepare(tmp_path).sizes["train"] == 5
    assert f"{path}: maximum recursion depth exceeded" in capsys.readouterr().out


def test_files_that_are_none_or_too_large_are_left_out(tmp_path, capsys):
    root = write(tmp_path, FILES, "{domain}/{building}")
    folder = root / KEYPOINTS / "hanson"
    large = bytearray(FILES["darden", KEYPOINTS, (1, 0)])
    large[16:24] = struct.pack(">II", 60_000, 60_000)
    (root / KEYPOINTS / "darden" / "point_1_view_0.png").write_bytes(large)
    for view in ("1_view_0", "1_view_1", "10_view_0"):
        (folder / f"point_{view}.png").unlink()
    os.mkfifo(folder / "point_1_view_0.png")
    (folder / "point_1_view_1.png").symlink_to(root / "nowhere")
    (folder / "point_10_view_0.png").touch()
    os.truncate(folder / "point_10_view_0.png", 2**42)
    # A name that is no text is told all the same.
    name = os.fsdecode(b"point_3_view_3_\xff.png")
    (folder / name).write_bytes(b"")
    data = prepare(root)
    assert data.sizes == {"train": 3, "validation": 2, "test": 3}
    printed = capsys.readouterr().out
    assert "Left out as unreadable: 5: " in printed
    assert "point_1_view_0.png: it is no file" in printed
    assert "No such file or directory" in printed
    assert f"point_10_view_0.png: it has {2**42} bytes" in printed
    assert "it claims to have 60000 x 60000 pixels" in printed
    assert r"point_3_view_3_\udcff.png: it is empty" in printed


def test_an_index_edited_at_random_loads_or_is_named(tmp_path):
    prepare(write(tmp_path, FILES, "{domain}/{building}"))
    (path,) = (tmp_path / ".tag_keras").glob("index-*.npz")
    whole, wanted = path.read_bytes(), load_index(path)
    for seed in range(100):
        path.write_bytes(edit_bytes(whole, random.Random(seed)))
        try:
            index = load_index(path)
        except ValueError as error:
            assert str(path) in str(error), seed
        else:
            assert index.folders == wanted.folders and index.suffixes == wanted.suffixes
            for name, samples in index.samples.items():
                np.testing.assert_array_equal(samples.views, wanted.samples[name].views)


def test_an_index_with_a_part_of_another_kind_is_named(tmp_path):
    path = tmp_path / "index-0.npz"
    # Lists of lists without end.
    np.savez(path, lists=np.frombuffer(b"[" * 100_000, np.uint8))
    with pytest.raises(ValueError, match=r"index-0\.npz is not an index of samples .* Delete it"):
        load_index(path)
