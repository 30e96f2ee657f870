"""Penn Treebank: made-up texts against a reading word by word, the real ones (where a mirror is
set) against facts.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_bench.core.table import Table
from hpo_bench.datasets.penn_treebank import PennTreebank, read_words, side_by_side
from hpo_bench.datasets.sources import RemoteFile
from hpo_bench.errors import UserError
from hpo_bench.settings import identity
from hpo_bench.settings.catalogue import read_dataset
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse

TEXTS = {
    "training_text": " the cat sat \n on the mat \n and <unk> slept \n",  # 9 words and 3 ends
    "validation_text": " a dog sat \n on it \n",  # 5 and 2
    "test_text": " the dog slept \n and the cat \n",  # 6 and 2
}
KNOWN, TEST, WORDS = 19, 8, 12
Make = Callable[..., PennTreebank]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Put texts on a mirror and return the source that reads them."""
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_BENCH_DATA_MIRROR", str(tmp_path / "mirror"))

    def make(name: str = "made_up", columns: int = 3, **changed: str | bytes) -> PennTreebank:
        (tmp_path / "mirror" / name).mkdir(parents=True)
        files = {}
        for key, text in {**TEXTS, **changed}.items():
            content = text if isinstance(text, bytes) else text.encode()
            (tmp_path / "mirror" / name / key).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            files[key] = RemoteFile(key, ("https://invalid.invalid/x",), digest, len(content))
        return PennTreebank(
            name, **files, training_and_validation=KNOWN, test=TEST, words=WORDS, columns=columns
        )

    return make


def words_of(*texts: str) -> list[str]:
    return [
        word for text in texts for line in text.splitlines() for word in [*line.split(), "<eos>"]
    ]


def test_every_target_is_the_word_after_its_input(make: Make) -> None:
    loaded = make().load(0.4)
    known, test = (
        words_of(TEXTS["training_text"], TEXTS["validation_text"]),
        words_of(TEXTS["test_text"]),
    )
    numbers = {word: number for number, word in enumerate(sorted({*known, *test}))}
    rows = []
    for text in (known, test):
        steps = len(text) // 3  # 6 of 19 and 2 of 8
        rows += [
            [(text[piece * steps + step], text[piece * steps + step + 1]) for piece in range(3)]
            for step in range(steps - 1)
        ]
    assert loaded.inputs.tolist() == [[numbers[word] for word, _ in row] for row in rows]
    assert loaded.targets.tolist() == [[numbers[word] for _, word in row] for row in rows]
    assert loaded.inputs.dtype == loaded.targets.dtype == np.int64
    assert (loaded.training, loaded.validation, loaded.test) == (3, 2, 1)
    assert (loaded.task, loaded.outputs, loaded.target_scale, loaded.centre) == (
        "language",
        WORDS,
        1.0,
        None,
    )


@given(st.integers(0, 200), st.integers(1, 20))
def test_columns_are_consecutive_pieces_without_the_rest(count: int, columns: int) -> None:
    cut = side_by_side(np.arange(count), columns)
    assert cut.shape == (count // columns, columns)
    assert cut.T.ravel().tolist() == list(range(count // columns * columns))


@pytest.mark.parametrize("text", ["a b\nc\n", "a b\nc", " a  b \n c ", "a b\r\nc\r\n"])
def test_every_line_has_an_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "text").write_bytes(text.encode())
    assert read_words(tmp_path / "text") == ["a", "b", "<eos>", "c", "<eos>"]


def test_the_fingerprint_follows_what_decides_the_numbers(make: Make) -> None:
    one, other = make("a"), make("b", test_text=TEXTS["test_text"].replace("dog", "cat"))
    columns = make("c", columns=2)
    prints = {
        source.load(share).fingerprint for source in (one, other, columns) for share in (0.2, 0.5)
    }
    assert len(prints) == 6
    assert make("d").load(0.2).fingerprint == one.load(0.2).fingerprint


def test_the_first_words_alone_keep_the_vocabulary_and_the_test_text(make: Make) -> None:
    whole = make("whole").load(0.5)
    source = replace(make("part"), first_words=13)  # of 19: four steps of three columns
    part = source.load(0.5)
    assert (part.training, part.validation, part.test) == (2, 1, whole.test)
    assert part.inputs[:3].tolist() == [
        [int(word) for word in row] for row in _side_by_side(whole, make("again"), 13)
    ]
    assert part.inputs[3:].tolist() == whole.inputs[5:].tolist()
    assert (part.outputs, part.targets.shape) == (whole.outputs, part.inputs.shape)
    assert part.fingerprint != whole.fingerprint
    assert source.summary(0.5).parts == (2, 1, 1)
    all_words = replace(make("all"), first_words=KNOWN)
    assert all_words.load(0.5).fingerprint == whole.fingerprint


def _side_by_side(whole: Table, source: PennTreebank, words: int) -> np.ndarray:
    """The rows that the first words of a text, read again, are cut into."""
    texts = [TEXTS["training_text"], TEXTS["validation_text"]]
    every = words_of(*texts, TEXTS["test_text"])
    numbers = {word: number for number, word in enumerate(sorted(set(every)))}
    stream = np.array([numbers[word] for word in words_of(*texts)][:words])
    return side_by_side(stream, source.columns)[:-1]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "all", KNOWN + 1])
def test_a_wrong_number_of_words_is_one_line(make: Make, value: object) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.first_words={str(value).lower()}: must be "):
        replace(make(), first_words=value)


def test_a_part_of_the_text_has_its_own_label_and_the_whole_keeps_its_identity() -> None:
    def config(*overrides: str) -> dict[str, Any]:
        return parse(compose(["dataset=penn_treebank", *overrides])).config

    whole, part = config(), config("dataset.first_words=200000")
    assert whole["dataset"]["label"] == "Penn Treebank"
    assert part["dataset"]["label"] == "Penn Treebank (part)"
    key = identity.data_key(whole, {}, "")
    assert key != identity.data_key(part, {}, "")

    # Runs that were stored before there was such a setting are on the same data.
    assert "first_words" not in {*whole["dataset"], *whole["dataset"]["source"]}
    saying_so = copy.deepcopy(whole)
    saying_so["dataset"]["source"]["first_words"] = None
    assert identity.data_key(saying_so, {}, "") == key
    assert identity.numbers(saying_so) == identity.numbers(whole)
    assert key.startswith("f05645552988")  # as it has always been


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (
            {"training_text": "the cat"},
            r"training_text and validation_text hold 10 words, expected 19",
        ),
        ({"test_text": ""}, r"test_text holds 0 words, expected 8"),
        (
            {"test_text": TEXTS["test_text"].replace("dog", "bird")},
            r"have 13 different words, expected 12",
        ),
        ({"validation_text": b"\xff\xfe"}, r"validation_text is not UTF-8 text"),
    ],
)
def test_texts_that_are_not_as_promised_are_named(
    make: Make, changed: dict[str, str], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as error:
        make(**changed).load(0.4)
    assert "\n" not in str(error.value)


def test_the_listing_has_the_papers_sizes() -> None:
    summary = read_dataset("penn_treebank").summary
    assert (summary.rows, summary.inputs, summary.parts) == (27_141, 40, (23_238, 1_844, 2_059))


@pytest.mark.skipif(
    "HPO_BENCH_DATA_MIRROR" not in os.environ, reason="HPO_BENCH_DATA_MIRROR is not set"
)
def test_the_real_files_give_the_known_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_BENCH_DATA", str(tmp_path))
    loaded = read_dataset("penn_treebank").source.load(73760 / 1003349)
    assert (loaded.training, loaded.validation, loaded.test) == (23_238, 1_844, 2_059)
    assert loaded.inputs.shape == loaded.targets.shape == (27_141, 40)
    texts = [
        (tmp_path / "penn_treebank" / f"ptb.{part}.txt").read_text()
        for part in ("train", "valid", "test")
    ]
    known, test = words_of(*texts[:2]), words_of(texts[2])
    assert (len(known), len(test)) == (1_003_349, 82_430)
    vocabulary = np.array(sorted({*known, *test}))
    assert len(vocabulary) == loaded.outputs == 10_000
    for text, begin, end, steps in ((known, 0, 25_082, 25_083), (test, 25_082, 27_141, 2_060)):
        for piece in (0, 7, 39):
            expected = text[piece * steps : (piece + 1) * steps]
            assert vocabulary[loaded.inputs[begin:end, piece]].tolist() == expected[:-1]
            assert vocabulary[loaded.targets[begin:end, piece]].tolist() == expected[1:]
