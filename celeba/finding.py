"""Finding CelebA in the folders where people keep it, and telling them what is missing."""

from pathlib import Path

from celeba.lists import ATTRIBUTE_LIST, SPLIT_LIST
from celeba.sources import FileSource, PreparedSource

IMAGES = "img_align_celeba"
# Folders where people put the download, and the folders of the official download itself.
_ROOTS = (".", "downloads/manual", "celeba", "CelebA")
_PARTS = (".", "Anno", "Eval", "Img")


def find_source(data_dir: Path) -> FileSource | PreparedSource:
    """Finds CelebA in a folder.

    Args:
        data_dir: A data folder of TensorFlow Datasets, with `celeb_a/` prepared or with the
            downloaded files in `downloads/manual/`. Or the folder of the downloaded files:
            `img_align_celeba/` or `img_align_celeba.zip`, `list_attr_celeba.txt` and
            `list_eval_partition.txt`, or the lists as csv, as on Kaggle.

    Returns:
        The source. Its files are there, and are not checked.

    Raises:
        FileNotFoundError: If nothing is there, or not everything.
    """
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir} is no folder. {_WHERE_TO_GET}")
    prepared = _find_prepared(data_dir)
    if prepared is not None:
        return prepared
    found = {name: _find_part(data_dir, name) for name in (IMAGES, ATTRIBUTE_LIST, SPLIT_LIST)}
    images, attributes, partition = found.values()
    if images is None or attributes is None or partition is None:
        looked_for = {
            IMAGES: f"{IMAGES}/ or {IMAGES}.zip",
            ATTRIBUTE_LIST: f"{ATTRIBUTE_LIST}.txt or .csv",
            SPLIT_LIST: f"{SPLIT_LIST}.txt or .csv",
        }
        missing = [looked_for[name] for name, path in found.items() if path is None]
        there = [str(path) for path in found.values() if path is not None]
        raise FileNotFoundError(
            f"{data_dir} does not hold the whole of CelebA. Missing: {', '.join(missing)}; "
            f"found: {', '.join(there) or 'nothing'}. Looked in {data_dir}, in its folders "
            f"{', '.join(_ROOTS[1:])}, and there in {', '.join(_PARTS[1:])}; and for celeb_a/ as "
            f"TensorFlow Datasets prepares it. {_WHERE_TO_GET}"
        )
    return FileSource(images, attributes, partition)


_WHERE_TO_GET = (
    "CelebA is at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Align&Cropped Images, "
    "attributes, evaluation partitions), and on Kaggle as jessicali9530/celeba-dataset. Give the "
    "folder with img_align_celeba/ or img_align_celeba.zip, list_attr_celeba and "
    "list_eval_partition as data_dir, or put them into <data_dir>/downloads/manual/, the folder of "
    "TensorFlow Datasets for downloads by hand: its own download mostly fails for lack of quota."
)


def _find_prepared(data_dir: Path) -> PreparedSource | None:
    """The newest version that TensorFlow Datasets has prepared, if it can be read."""
    folders = [data_dir, *data_dir.glob("celeb_a/[0-9]*"), *data_dir.glob("[0-9]*")]
    infos = [one for one in folders if (one / "dataset_info.json").is_file()]
    if not infos:
        return None
    try:
        import tensorflow_datasets  # noqa: F401
    except ImportError:
        print(f"{infos[-1]} is left alone: reading it takes `pip install tensorflow-datasets`.")
        return None
    return PreparedSource(max(infos, key=lambda path: path.name))


def _find_part(data_dir: Path, name: str) -> Path | None:
    """The first place that has the images, or one of the lists."""
    suffixes = (".zip",) if name == IMAGES else (".txt", ".csv")
    for folder in (data_dir / root / part for root in _ROOTS for part in _PARTS):
        # Kaggle packs the folder of images into another one of the same name.
        for path in (folder / name / name, folder / name):
            if name == IMAGES and path.is_dir() and any(path.glob("*.[jJ]*")):
                return path
        for suffix in suffixes:
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None
