"""Every yaml of ``configs/dataset``, present and future, is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hpo_bench.errors import UserError
from hpo_bench.settings.catalogue import dataset_names, read_dataset
from hpo_bench.settings.yamls import configs_folder

NAMES = dataset_names()


def test_the_paper_s_sets_and_those_without_download_are_there() -> None:
    uci = {
        f"uci_{name}"
        for name in ["boston", "concrete", "energy", "kin8nm", "naval", "power", "wine", "yacht"]
    }
    larger = {"fashion_mnist", "fashion_mnist_batchnorm", "cifar10", "penn_treebank"}
    assert uci | larger | {"diabetes", "digits", "csv"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_yaml_says_all_that_others_need(name: str) -> None:
    path = configs_folder() / "dataset" / f"{name}.yaml"
    assert path.read_text(encoding="utf-8").startswith("# @package _global_\n")
    content = OmegaConf.load(path)
    dataset = content.dataset
    assert dataset.name == name
    assert dataset.task in ("regression", "classification", "language") or name == "csv"
    assert {"label", "metric", "metric_label", "metric_scale", "offline"} <= set(dataset)
    assert {"hyperparameter_updates", "validation_share", "batch_size", "record_every"} <= set(
        content
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_source_can_be_built_and_its_files_are_pinned(name: str) -> None:
    dataset = read_dataset(name)
    offline = OmegaConf.load(configs_folder() / "dataset" / f"{name}.yaml").dataset.offline
    assert offline == (not dataset.source.files)
    for file in dataset.source.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size > 0
        assert file.urls
        assert Path(file.name).name == file.name
        for url in file.urls:
            assert url.startswith("https://")
            assert "raw.githubusercontent.com" not in url or re.search(r"/[0-9a-f]{40}/", url)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("uci_")])
def test_what_uci_sets_are_checked_against_belongs_to_them(name: str) -> None:
    files = {file.name: file for file in read_dataset(name).source.files}
    assert set(files) == {"data.txt", "permutation_indices.txt"}
    folder = files["permutation_indices.txt"].urls[0].rsplit("/", 2)[1]
    assert folder.lower() == name


def test_no_two_files_share_a_checksum() -> None:
    files = {
        (file.folder or name, file.name, file.sha256)
        for name in NAMES
        for file in read_dataset(name).source.files
    }
    assert len({place for *place, _ in files for place in ["/".join(place)]}) == len(files)
    assert len({digest for *_, digest in files}) == len(files)


def test_an_unknown_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"no dataset 'uci_enrgy': did you mean uci_energy"
    ) as error:
        read_dataset("uci_enrgy")
    assert "\n" not in str(error.value)


def test_a_folder_of_one_s_own_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    text = (configs_folder() / "dataset" / "diabetes.yaml").read_text(encoding="utf-8")
    (tmp_path / "dataset" / "mine.yaml").write_text(text, encoding="utf-8")
    assert dataset_names(tmp_path) == ["mine"]
    assert read_dataset("mine", tmp_path).summary.rows == 442
