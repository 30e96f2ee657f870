"""Fashion-MNIST: made-up idx files for what can go wrong, the real ones (where a mirror is set)
against known facts.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from hpo_bench.datasets import sources
from hpo_bench.datasets.fashion_mnist import FashionMNIST
from hpo_bench.datasets.preparation import standardise
from hpo_bench.datasets.sources import RemoteFile
from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import read_dataset
from hpo_bench.settings.yamls import configs_folder

KNOWN, TEST, IMAGE = 12, 5, (3, 2)
NAMES = ("training_images", "training_labels", "test_images", "test_labels")
Make = Callable[..., FashionMNIST]


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def contents(seed: int = 0) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    arrays = [
        array
        for rows in (KNOWN, TEST)
        for array in (random.integers(0, 256, (rows, *IMAGE)), random.integers(0, 10, rows))
    ]
    return {name: gzip.compress(idx(array)) for name, array in zip(NAMES, arrays, strict=True)}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put files on a mirror and return the source that reads them."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(tmp_path / "mirror"))

    def make(name: str = "made_up", **changed: bytes) -> FashionMNIST:
        (tmp_path / "mirror" / name).mkdir(parents=True)
        files = {}
        for key, content in {**contents(), **changed}.items():
            (tmp_path / "mirror" / name / key).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            files[key] = RemoteFile(key, ("https://invalid.invalid/x",), digest, len(content))
        return FashionMNIST(name, **files, training_and_validation=KNOWN, test=TEST, image=IMAGE)

    return make


def test_rows_keep_their_order_and_type(make: Make) -> None:
    loaded = make().load(0.25)
    files = {name: gzip.decompress(content) for name, content in contents().items()}
    pixels = np.frombuffer(files["training_images"][16:] + files["test_images"][16:], np.uint8)
    np.testing.assert_array_equal(loaded.inputs, pixels.reshape(KNOWN + TEST, 6))
    assert loaded.inputs.dtype == np.uint8
    np.testing.assert_array_equal(
        loaded.targets, list(files["training_labels"][8:] + files["test_labels"][8:])
    )
    assert (loaded.training, loaded.validation, loaded.test) == (9, 3, 5)
    assert (loaded.task, loaded.outputs, loaded.target_scale, loaded.targets.dtype) == (
        "classification",
        10,
        1.0,
        np.int64,
    )


def test_each_pixel_is_standardised_by_the_known_rows(make: Make) -> None:
    loaded = make().load(0.25)
    assert loaded.centre is not None
    assert loaded.scale is not None
    expected, scale = standardise(loaded.inputs.astype(np.float64), KNOWN)
    np.testing.assert_allclose((loaded.inputs - loaded.centre) / loaded.scale, expected, atol=1e-13)
    np.testing.assert_allclose(loaded.scale, scale, rtol=1e-14)


def test_the_fingerprint_follows_files_and_parts_alone(make: Make) -> None:
    one, other = make("a"), make("b", **contents(1))
    assert replace(one, name="a").load(0.25).fingerprint == one.load(0.2501).fingerprint
    assert (
        len({source.load(share).fingerprint for source in (one, other) for share in (0.25, 0.5)})
        == 4
    )


WRONG = {
    "another shape": (
        "training_images",
        gzip.compress(idx(np.zeros((KNOWN, 2, 2)))),
        "holds 12 x 2 x 2 bytes, expec",
    ),
    "labels for images": (
        "test_images",
        gzip.compress(idx(np.zeros(TEST))),
        "holds 5 bytes, expected 5 x 3 x 2",
    ),
    "too few entries": (
        "test_images",
        gzip.compress(idx(np.zeros((TEST, *IMAGE)))[:-1]),
        "is cut off: 29 bytes of 30",
    ),
    "cut header": ("test_labels", gzip.compress(idx(np.zeros(TEST))[:6]), "holds"),
    "another type": (
        "test_labels",
        gzip.compress(b"\0\0\x0d" + idx(np.zeros(TEST))[3:]),
        "is not an idx file of byt",
    ),
    "empty": ("test_labels", gzip.compress(b""), "is not an idx file of bytes"),
    "cut gzip": ("test_images", contents()["test_images"][:-9], "cannot be decompressed"),
    "no gzip": ("test_images", b"<html>sign in</html>", "cannot be decompressed"),
    "damaged gzip": (
        "test_images",
        contents()["test_images"][:-6] + b"\0\0\0\0\0\0",
        "cannot be decompressed",
    ),
    "no class": (
        "test_labels",
        gzip.compress(idx(np.full(TEST, 10))),
        "10 is no class, allowed: 0 to 9",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_as_promised_is_named(make: Make, case: str) -> None:
    name, content, complaint = WRONG[case]
    with pytest.raises(UserError, match=f"{name}.*{complaint}") as error:
        make(**{name: content}).load(0.25)
    assert "\n" not in str(error.value)


def test_another_file_than_the_published_one_is_refused(make: Make, tmp_path: Path) -> None:
    source = make()
    (tmp_path / "mirror" / "made_up" / "test_labels").write_bytes(contents(1)["test_labels"])
    with pytest.raises(UserError, match=r"test_labels .*not the file that was expected"):
        source.load(0.25)


def without_header(content: bytes) -> bytes:
    """The same deflate stream under the header that distributions give it: no name, no time."""
    return gzip.compress(gzip.decompress(content), compresslevel=1, mtime=0)


def test_a_copy_that_a_package_brought_is_read_where_it_lies(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make()
    expected = source.load(0.25)
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", "")
    files = {}
    for key, content in contents().items():
        (tmp_path / f"{key}.gz").write_bytes(without_header(content))
        unpacked = hashlib.sha256(gzip.decompress(content)).hexdigest()
        files[key] = replace(
            getattr(source, key),
            urls=(),
            packaged=(str(tmp_path / f"{key}.gz"),),
            unpacked_sha256=unpacked,
        )
    there = replace(source, **files)
    loaded = there.load(0.25)
    assert loaded.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(loaded.inputs, expected.inputs)
    assert not (tmp_path / "nothing").exists()
    for wrong in (
        without_header(contents(1)["test_labels"]),
        contents()["test_labels"][:-9],
        b"no gzip",
    ):
        (tmp_path / "test_labels.gz").write_bytes(wrong)
        with pytest.raises(UserError, match=r"made_up/test_labels .it has no public source"):
            there.load(0.25)


def test_files_of_another_set_are_shared_by_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    plain, normalised = (
        read_dataset(name).source for name in ("fashion_mnist", "fashion_mnist_batchnorm")
    )
    for one, other in zip(plain.files, normalised.files, strict=True):
        assert replace(one, folder="fashion_mnist") == other
        path = sources.cached_path("fashion_mnist_batchnorm", other)
        assert (
            path
            == sources.cached_path("fashion_mnist", one)
            == tmp_path / "fashion_mnist" / one.name
        )
        assert one.packaged == [f"/usr/share/datasets/fashion-mnist/{one.name}"]


def test_the_two_sets_differ_by_name_and_model_alone() -> None:
    folder = configs_folder() / "dataset"
    plain, normalised = (
        OmegaConf.load(folder / f"{name}.yaml")
        for name in ("fashion_mnist", "fashion_mnist_batchnorm")
    )
    assert plain.defaults == [{"override /model": "mlp"}]
    assert normalised.defaults == [{"override /model": "mlp_batchnorm"}]
    for content in (plain, normalised):
        for key in ("dataset", "defaults"):
            content.pop(key)
    assert plain == normalised


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_batchnorm"])
def test_the_listing_has_the_papers_sizes(name: str) -> None:
    summary = read_dataset(name).summary
    assert (summary.rows, summary.inputs, summary.parts) == (70_000, 784, (50_000, 10_000, 10_000))


@pytest.mark.skipif(
    "HPO_BENCH_DATA_MIRROR" not in os.environ, reason="HPO_BENCH_DATA_MIRROR is not set"
)
def test_the_real_files_give_the_known_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    dataset = read_dataset("fashion_mnist_batchnorm")
    loaded = dataset.source.load(1 / 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fashion_mnist"]
    assert loaded.name == "fashion_mnist_batchnorm"
    assert (loaded.training, loaded.validation, loaded.test) == dataset.summary.parts
    assert (loaded.inputs.shape, loaded.inputs.dtype) == ((70_000, 784), np.uint8)
    assert loaded.targets[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert loaded.targets[60_000:60_004].tolist() == [9, 2, 1, 1]
    assert np.bincount(loaded.targets[:60_000]).tolist() == [6_000] * 10
    assert np.bincount(loaded.targets[60_000:]).tolist() == [1_000] * 10
    assert loaded.centre is not None
    assert loaded.scale is not None
    few = slice(390, 410)  # pixels from the middle, in float64
    known = loaded.inputs[:60_000, few].astype(np.float64)
    np.testing.assert_allclose(loaded.centre[few], known.mean(axis=0), rtol=1e-11)
    np.testing.assert_allclose(loaded.scale[few], known.std(axis=0, ddof=1), rtol=1e-11)
