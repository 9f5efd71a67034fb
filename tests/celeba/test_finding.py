"""What is told where CelebA is not, or is not whole."""

import os
import shutil
import sys

import celeba_files
import pytest
from celeba_files import SIZES, make_folder

from celeba.data import CelebA
from celeba.finding import find_source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("prepared")
    celeba_files.make_prepared(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path)
    return tmp_path


def test_no_data_is_told_with_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder\. CelebA is at https"):
        CelebA(tmp_path / "nowhere").prepare()
    with pytest.raises(FileNotFoundError) as error:
        CelebA(tmp_path).prepare()
    for part in (
        f"{tmp_path} does not hold the whole of CelebA",
        "Missing: img_align_celeba/ or img_align_celeba.zip, list_attr_celeba.txt or .csv, "
        "list_eval_partition.txt or .csv; found: nothing",
        "downloads/manual",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "jessicali9530/celeba-dataset",
        "TensorFlow Datasets",
    ):
        assert part in str(error.value)
    # Nothing was made.
    assert list(tmp_path.iterdir()) == []


def test_a_missing_list_is_told(folder):
    (folder / "list_eval_partition.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Missing: list_eval_partition\.txt or \.csv; found: .*attr_celeba"
    ):
        CelebA(folder).prepare()


def test_missing_images_are_told(folder):
    for name in ("000002.jpg", "000020.jpg"):
        (folder / "img_align_celeba" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks 2 of the 23 images that .*: 000002\.jpg, 000020\.jpg\."
    ):
        CelebA(folder).prepare()
    assert not (folder / "tag_keras_cache").exists()


def test_an_archive_that_is_cut_off_is_told(tmp_path):
    celeba_files.make_manual_zip(tmp_path)
    path = tmp_path / "downloads" / "manual" / "img_align_celeba.zip"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"img_align_celeba\.zip is cut off, damaged, or no"):
        CelebA(tmp_path).prepare()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("attr", "23\n", "24\n", "as many rows as its first line says, 24. Received: 23 rows"),
        ("attr", " Bald ", " Balt ", r"40 attributes in its header. Received: 40 names, '5_o_"),
        (
            "attr",
            "000001.jpg",
            "000001.jpg 1",
            r"txt, line 3, should have a file name and 40 times",
        ),
        ("attr", "000001.jpg", "1.jpg", r"partition\.txt names 000001\.jpg, which .*attr_celeba"),
        ("eval", "000001.jpg 0", "000001.jpg 3", "txt, line 1, should have a file name and 0, 1"),
        ("eval", ".jpg 2", ".jpg 1", r"images of all splits\. Without any: \['test'\]"),
        ("eval", None, "", "is empty"),
        ("attr", None, "\n\n", "is empty"),
        # Once in the training data and once in those of the test.
        ("eval", "000023.jpg 2", "000001.jpg 2", "txt, line 23, names 000001\\.jpg again"),
        ("attr", "000007.jpg", "000002.jpg", "has several rows of 000002\\.jpg"),
    ],
)
def test_lists_that_are_wrong_are_told(folder, file, old, new, message):
    (path,) = folder.glob(f"list_{file}*")
    path.write_text(new if old is None else path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        CelebA(folder).prepare()


def test_lists_that_are_no_text_are_told(folder, tmp_path):
    (path,) = folder.glob("list_eval*")
    # A zip file under the name of the list, and a csv file without the ends of its lines.
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(
        ValueError, match=r"partition\.txt is no list of text \(.*invalid start byte"
    ):
        CelebA(folder).prepare()
    kaggle = tmp_path / "kaggle"
    celeba_files.make_kaggle(kaggle)
    (kaggle / "list_eval_partition.csv").write_text("0" * 200_000)
    with pytest.raises(ValueError, match=r"partition\.csv is no list of text \(field larger"):
        CelebA(kaggle).prepare()


def test_prepared_files_without_a_split_are_told(prepared, tmp_path):
    shutil.copytree(prepared / "celeb_a", tmp_path / "celeb_a")
    info = tmp_path / "celeb_a" / "2.1.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"validation"', '"other"'))
    with pytest.raises(ValueError, match=r"examples of all splits. Without any: \['validation'\]"):
        CelebA(tmp_path).prepare()


def test_prepared_files_that_are_damaged_are_told(prepared, tmp_path):
    shutil.copytree(prepared / "celeb_a", tmp_path / "celeb_a")
    path = sorted((tmp_path / "celeb_a" / "2.1.0").glob("*train.tfrecord*"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"2\.1\.0 is damaged \(.*\)\. Delete it and prepare it"):
        CelebA(tmp_path).prepare()
    path.unlink()
    with pytest.raises(ValueError, match=r"2\.1\.0 is damaged \(.*\)\. Delete it and prepare it"):
        CelebA(tmp_path).prepare()


def test_without_the_library_prepared_files_are_left_alone(prepared, tmp_path, monkeypatch, capsys):
    shutil.copytree(prepared / "celeb_a", tmp_path / "celeb_a")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(FileNotFoundError, match="does not hold the whole of CelebA"):
        find_source(tmp_path)
    assert "takes `pip install tensorflow-datasets`" in capsys.readouterr().out
    make_folder(tmp_path)
    assert find_source(tmp_path).sizes == SIZES


@pytest.mark.slow
def test_the_folder_of_a_version_will_do_and_may_have_the_cache_in_it(prepared, tmp_path, capsys):
    version = tmp_path / "2.1.0"
    shutil.copytree(prepared / "celeb_a" / "2.1.0", version)
    data = CelebA(version, image_size=8)
    data.prepare()
    first = data.fingerprint
    assert (version / "tag_keras_cache").is_dir()
    capsys.readouterr()
    data.prepare()
    # The cache of the first time is found.
    assert (capsys.readouterr().out, data.fingerprint) == ("", first)
