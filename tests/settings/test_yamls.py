"""Files of yamls: their encoding and their numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.errors import UserError
from hpo_bench.settings.compose import compose
from hpo_bench.settings.yamls import read_yaml


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\ufeff# @package _global_\nseed: 1\n".encode(), "byte-order mark"),
        (b"# @package _global_\nseed: 1  # \xe9\n", "line 2 has the byte 0xe9"),
        ("seed: 1\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_yaml_in_another_encoding_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "dataset" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        compose(["dataset=mine"], tmp_path)
    assert str(file) in str(caught.value)


def test_our_own_reader_of_yamls_knows_byte_order_marks_and_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("\ufeffa: 1e-3\nb: ${a}\nc: [.5, 1_000]\n", encoding="utf-8")
    assert read_yaml(file) == {"a": 0.001, "b": "${a}", "c": [0.5, 1000]}
    for content in ("a: [1", "a: ${", "a: 1\na: 2"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"a\.yaml"):
            read_yaml(file)
