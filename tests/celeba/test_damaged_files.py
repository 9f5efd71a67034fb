"""Files of CelebA that cannot be read: left out, counted and named, whatever is wrong with them."""

import os
import struct
import zipfile

import celeba_files
import numpy as np
import pytest
from celeba_files import collect, make_folder, make_jpeg

from celeba.data import CelebA

# A PNG file of 60,000 x 60,000 pixels, and a JPEG file of as many: decoded, 10 GB.
LARGE_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 60_000, 60_000)


def large_jpeg():
    """An image in a file that says it has 60,000 x 60,000 pixels."""
    file = bytearray(make_jpeg(0))
    place = file.index(b"\xff\xc0")
    assert struct.unpack(">HH", file[place + 5 : place + 9]) == (218, 178)
    file[place + 5 : place + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(file)


def test_files_that_are_none_or_too_large_are_left_out(tmp_path, capsys):
    make_folder(tmp_path)
    images = tmp_path / "img_align_celeba"
    wanted = collect(CelebA(tmp_path, cache_dir=tmp_path / "whole"), "test")[0]
    for name in ("000001", "000002", "000003", "000004", "000013", "000014", "000018"):
        (images / f"{name}.jpg").unlink()
    (images / "000001.jpg").symlink_to(tmp_path / "nowhere")
    (images / "000002.jpg").symlink_to(images / "000003.jpg")
    (images / "000003.jpg").symlink_to(images / "000002.jpg")
    (images / "000004.jpg").mkdir()
    os.mkfifo(images / "000013.jpg")
    (images / "000014.jpg").touch()
    os.truncate(images / "000014.jpg", 2**40)
    (images / "000015.jpg").write_bytes(LARGE_PNG + b"\x08\x02\x00\x00\x00" + b"\x00" * 100)
    (images / "000016.jpg").write_bytes(large_jpeg())
    (images / "000018.jpg").write_bytes(LARGE_PNG[:18])
    # Nor does it matter what lies beside the images.
    (images / "of no image").symlink_to(tmp_path / "nowhere")
    data = CelebA(tmp_path)
    assert data.prepare() == {
        "train": ["000001.jpg", "000002.jpg", "000003.jpg", "000004.jpg"],
        "validation": ["000013.jpg", "000014.jpg", "000015.jpg", "000016.jpg"],
        "test": ["000018.jpg"],
    }
    assert "9 images cannot be read and are left out: 000001.jpg, " in capsys.readouterr().out
    np.testing.assert_array_equal(collect(data, "test")[0], wanted[1:])
    # A link that leads somewhere again is taken in.
    (tmp_path / "nowhere").write_bytes(make_jpeg(0))
    assert data.prepare()["train"] == ["000002.jpg", "000003.jpg", "000004.jpg"]


def test_members_of_an_archive_that_cannot_be_read_are_left_out(tmp_path):
    celeba_files.make_manual_zip(tmp_path)
    path = tmp_path / "downloads" / "manual" / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "a") as archive:

        def member(number):
            return archive.getinfo(f"img_align_celeba/{number:06}.jpg")

        member(1).flag_bits |= 1  # Encrypted.
        # Compressed by a method that nobody has, and by three of which the bytes are none.
        for number, method in enumerate((99, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, 8), start=2):
            member(number).compress_type = method
        member(13).file_size = 2**40
        # The table of contents is written anew.
        archive.writestr("img_align_celeba/other", b"")
    names = CelebA(tmp_path).prepare()
    assert names["train"] == [f"{number:06}.jpg" for number in range(1, 6)]
    assert names["validation"] == ["000013.jpg"]


def test_an_archive_with_a_damaged_table_of_contents_is_told(tmp_path):
    celeba_files.make_manual_zip(tmp_path)
    path = tmp_path / "downloads" / "manual" / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\x01\x02")
    # A name in UTF-8 that is none.
    content[first + 9] |= 8
    content[first + 46] = 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"celeba\.zip is cut off, damaged, or no zip file\. Down"):
        CelebA(tmp_path).prepare()
