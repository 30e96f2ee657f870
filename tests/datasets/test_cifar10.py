"""CIFAR-10: made-up archives in the published form, and the real subset where a mirror is set."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo_bench.datasets import cifar10
from hpo_bench.datasets.cifar10 import CIFAR10, TEST, TRAINING
from hpo_bench.datasets.sources import RemoteFile
from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import read_dataset

ROWS = 4  # of each batch
KNOWN = ROWS * len(TRAINING)
FOLDER = "cifar-10-batches-py"
Content = tuple[np.ndarray, list[int]]
Make = Callable[..., CIFAR10]


def python_2(images: np.ndarray, labels: list[int]) -> bytes:
    """The pickle, opcode by opcode, that Python 2 wrote of ``{"data": images, "labels":
    labels}``.
    """

    def string(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    shape = b"".join(b"M" + struct.pack("<H", size) for size in images.shape) + b"\x86"
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + string(b"b")
        + b"\x87R"
    )
    unset = b"J\xff\xff\xff\xff"
    dtype = (
        b"cnumpy\ndtype\n"
        + string(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + string(b"|")
        + b"NNN"
        + 2 * unset
        + b"K\x00tb"
    )
    array = empty + b"(K\x01" + shape + dtype + b"\x89" + string(images.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + numbers + b"u."


@functools.cache
def batches(seed: int = 0) -> dict[str, Content]:
    random = np.random.default_rng(seed)
    return {
        name: (
            random.integers(0, 256, (ROWS, 3072), dtype=np.uint8),
            random.integers(0, 10, ROWS).tolist(),
        )
        for name in (*TRAINING, TEST)
    }


def pickles(seed: int = 0) -> dict[str, bytes]:
    return {name: python_2(*content) for name, content in batches(seed).items()}


def tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)  # the same bytes at any time


def npz(**changed: np.ndarray) -> bytes:
    """The first rows of the archive's batches: 6 and 3."""
    images, labels = arrays()
    buffer = io.BytesIO()
    content = {
        "train_images": images[:6],
        "train_labels": labels[:6],
        "test_images": images[KNOWN : KNOWN + 3],
        "test_labels": labels[KNOWN : KNOWN + 3],
    }
    np.savez(buffer, **{**content, **changed})
    return buffer.getvalue()


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """All images and labels, training batches first."""
    images = np.concatenate([images for images, _ in batches().values()]).reshape(-1, 3, 32, 32)
    return images, np.concatenate([labels for _, labels in batches().values()])


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put an archive and a subset on a mirror and return the source that reads them."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror" / "cifar10").mkdir(parents=True)

    def make(archive: bytes | None = None, small: bytes | None = None, **options: Any) -> CIFAR10:
        files = {
            "archive": tar(pickles()) if archive is None else archive,
            "small": npz() if small is None else small,
        }
        for name, content in files.items():
            (tmp_path / "mirror" / "cifar10" / name).write_bytes(content)
        remote = {
            name: RemoteFile(name, (), hashlib.sha256(content).hexdigest(), len(content))
            for name, content in files.items()
        }
        return CIFAR10(
            "cifar10",
            **remote,
            training_and_validation=KNOWN,
            test=ROWS,
            small_rows=(6, 3),
            **options,
        )

    return make


def test_rows_are_the_batches_in_their_order_wherever_they_are_in_the_archive(make: Make) -> None:
    shuffled = dict(reversed(pickles().items()))
    loaded = make(tar({"readme.html": b"<html>", **shuffled})).load(0.1)
    images, labels = arrays()
    np.testing.assert_array_equal(loaded.inputs, images)
    np.testing.assert_array_equal(loaded.targets, labels)
    assert (loaded.inputs.dtype, loaded.targets.dtype) == (np.uint8, np.int64)
    assert (loaded.task, loaded.training, loaded.validation, loaded.test, loaded.outputs) == (
        "classification",
        18,
        2,
        4,
        10,
    )


def test_pixels_are_scaled_to_the_unit_interval_before_the_constants_apply(make: Make) -> None:
    loaded = make().load(0.1)
    pixels = loaded.inputs / 255
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (cifar10.MEAN, cifar10.STD))
    np.testing.assert_allclose(
        (loaded.inputs - loaded.centre) / loaded.scale, (pixels - mean) / std, atol=1e-12
    )


def test_the_papers_scale_applies_the_constants_to_bytes(make: Make) -> None:
    """DIFFERENCE in `CIFAR10`: the authors' inputs are about 255 times as large and not centred."""
    unit, paper = make().load(0.1), make(pixel_scale="paper").load(0.1)
    np.testing.assert_array_equal(paper.inputs, unit.inputs)
    assert paper.centre.ravel().tolist() == list(cifar10.MEAN)
    assert paper.scale.ravel().tolist() == list(cifar10.STD)
    assert paper.fingerprint != unit.fingerprint
    standardised = (paper.inputs - paper.centre) / paper.scale
    assert standardised.mean() > 400


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"pixel_scale": "papr"}, r"dataset\.pixel_scale=papr: did you mean paper"),
        ({"subset": "yes"}, r"dataset\.subset=yes: must be true or false"),
    ],
)
def test_an_option_that_does_not_exist_is_named(
    make: Make, option: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        make(**option)


def test_the_subset_is_the_same_from_its_file_and_from_a_cached_archive(
    make: Make, tmp_path: Path
) -> None:
    source = make(subset=True)
    from_file = source.load(0.5)
    assert {path.name for path in (tmp_path / "cache" / "cifar10").iterdir()} - {".lock"} == {
        "small"
    }
    replace(source, subset=False).load(0.1)
    (tmp_path / "cache" / "cifar10" / "small").unlink()
    from_archive = source.load(0.5)
    images, labels = arrays()
    kept = [0, 1, 2, 3, 4, 5, 20, 21, 22]
    for loaded in (from_file, from_archive):
        np.testing.assert_array_equal(loaded.inputs, images[kept])
        np.testing.assert_array_equal(loaded.targets, labels[kept])
        assert (loaded.training, loaded.validation, loaded.test) == (3, 3, 3)
    assert (
        from_file.fingerprint
        == from_archive.fingerprint
        != replace(source, subset=False).load(0.1).fingerprint
    )
    assert not (tmp_path / "cache" / "cifar10" / "small").exists()
    assert source.summary(0.5).parts == (3, 3, 3)
    assert source.files == (source.small,)


class Foreign:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_foreign_code_is_run(make: Make, tmp_path: Path) -> None:
    evil = pickle.dumps({"data": Foreign(tmp_path / "touched"), "labels": []}, protocol=2)
    with pytest.raises(UserError, match=r"data_batch_3 cannot be read: .* is not allowed in it"):
        make(tar({**pickles(), "data_batch_3": evil})).load(0.1)
    assert not (tmp_path / "touched").exists()


def without(name: str) -> dict[str, bytes]:
    return {member: content for member, content in pickles().items() if member != name}


def wrong_archives() -> dict[str, tuple[bytes, str]]:
    whole, good = tar(pickles()), pickles()
    images, labels = batches()[TEST]
    return {
        "cut": (whole[: len(whole) // 2], "cannot be read as a tar archive"),
        "no archive": (b"<html>sign in</html>", "cannot be read as a tar archive"),
        "empty": (b"", "cannot be read as a tar archive"),
        "damaged": (
            whole[:5000] + bytes(2000) + whole[7000:],
            "has no data_batch_.: it is damaged",
        ),
        "no test batch": (tar(without(TEST)), "has no test_batch"),
        "cut pickle": (tar({**good, TEST: good[TEST][:-40]}), "test_batch cannot be read"),
        "no pickle": (tar({**good, TEST: b"nothing"}), "test_batch cannot be read"),
        "no labels": (
            tar({**good, TEST: pickle.dumps({"data": None}, 2)}),
            "test_batch cannot be read",
        ),
        "a list": (tar({**good, TEST: pickle.dumps([1, 2], 2)}), "test_batch cannot be read"),
        "no images": (
            tar({**good, TEST: pickle.dumps({"data": [1], "labels": [1]}, 2)}),
            "does not hold images of 3072",
        ),
        "small images": (
            tar({**good, TEST: python_2(images[:, :999], labels)}),
            "does not hold images of 3072 bytes",
        ),
        "few rows": (
            tar({**good, TEST: python_2(images[:2], labels[:2])}),
            "2 images and 2 labels, expected 4 of each",
        ),
        "few labels": (
            tar({**good, TEST: python_2(images, labels[:2])}),
            "4 images and 2 labels, expected 4 of each",
        ),
        "no class": (
            tar({**good, TEST: python_2(images, [10] * ROWS)}),
            "10 is no class, allowed: 0 to 9",
        ),
    }


@pytest.mark.parametrize("case", wrong_archives())
def test_an_archive_that_is_not_as_promised_is_one_clear_line(make: Make, case: str) -> None:
    content, complaint = wrong_archives()[case]
    with pytest.raises(UserError, match=f"archive.*{complaint}") as error:
        make(content).load(0.1)
    assert "\n" not in str(error.value)


WRONG_SUBSETS = {
    "cut": (npz()[:-200], "cannot be read"),
    "nothing": (b"", "cannot be read"),
    "objects": (npz(train_labels=np.array([None])), "cannot be read"),
    "rows": (npz(train_labels=np.zeros(5, int)), "6 images and 5 labels, expected 6 of each"),
    "shape": (
        npz(test_images=np.zeros((3, 32, 32, 3), np.uint8)),
        r"images \(3, 32, 32, 3\) of uint8, expected",
    ),
    "type": (npz(test_images=np.zeros((3, 3, 32, 32))), "of float64, expected"),
    "class": (npz(test_labels=np.full(3, -1)), "-1 is no class"),
}


@pytest.mark.parametrize("case", WRONG_SUBSETS)
def test_a_subset_that_is_not_as_promised_is_one_clear_line(make: Make, case: str) -> None:
    content, complaint = WRONG_SUBSETS[case]
    with pytest.raises(UserError, match=f"small.*{complaint}") as error:
        make(small=content, subset=True).load(0.5)
    assert "\n" not in str(error.value)


def test_the_listing_has_the_papers_sizes() -> None:
    dataset = read_dataset("cifar10")
    assert (dataset.label, dataset.summary.rows, dataset.summary.inputs) == (
        "CIFAR-10",
        60_000,
        3072,
    )
    assert dataset.summary.parts == (45_000, 5_000, 10_000)
    assert [file.name for file in dataset.source.files] == ["cifar-10-python.tar.gz"]


@pytest.mark.skipif(
    "HPO_BENCH_DATA_MIRROR" not in os.environ, reason="HPO_BENCH_DATA_MIRROR is not set"
)
def test_the_real_subset_gives_the_known_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    settings = parse(compose(["dataset=cifar10", "model=mlp", "dataset.subset=true"]))
    assert settings.config["dataset"]["label"] == "CIFAR-10 (subset)"
    loaded = settings.source.load(0.1)
    assert (loaded.training, loaded.validation, loaded.test) == (1800, 200, 500)
    assert (loaded.inputs.shape, loaded.inputs.dtype) == ((2500, 3, 32, 32), np.uint8)
    assert loaded.targets[:8].tolist() == [6, 9, 9, 4, 1, 1, 2, 7]
    assert loaded.targets[2000:2004].tolist() == [3, 8, 8, 0]
    assert loaded.inputs[0, 0, 0, :3].tolist() == [59, 43, 50]
    standardised = (loaded.inputs - loaded.centre) / loaded.scale
    np.testing.assert_allclose(standardised.mean(axis=(0, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(standardised.std(axis=(0, 2, 3)), 1, atol=0.05)
