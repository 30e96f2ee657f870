"""Penn Treebank in Mikolov's preparation, as parallel columns of word numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpo_bench.core import checks
from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import fingerprint, split
from hpo_bench.datasets.sources import DatasetSummary, RemoteFile, fetch
from hpo_bench.errors import UserError

LOADER = "penn_treebank/1"
END = "<eos>"  # follows every line


@dataclass(frozen=True)
class PennTreebank:
    """Next-word prediction: a row is one time step of ``columns`` sequences that run in parallel.

    The texts for training and validation, joined, are cut into ``columns`` pieces of equal length
    (left-over words are dropped); row t has the t-th word of each piece as inputs and the words
    after them as targets. The last rows are for validation: the end of each piece, not the
    published validation text. The test text is cut likewise.

    Args:
        name: id of the dataset; seeds derive from it.
        training_text, validation_text, test_text: the three files.
        training_and_validation, test: words of the joined texts and of the test text, each line's
            `END` included.
        words: different words in all of them. Their numbers are their places in the list sorted by
            code points.
        columns: sequences that run in parallel.
        first_words: how many words of the joined texts are used, from the beginning; None: all. The
            vocabulary and the test text stay whole, so that perplexities are of the same task.
    """

    name: str
    training_text: RemoteFile
    validation_text: RemoteFile
    test_text: RemoteFile
    training_and_validation: int
    test: int
    words: int
    columns: int = 40
    first_words: int | None = None

    def __post_init__(self) -> None:
        checks.whole_or("dataset.first_words", self.first_words, None)
        if self.first_words is not None and self.first_words > self.training_and_validation:
            raise UserError(
                f"dataset.first_words={self.first_words}: must be null or at most "
                f"{self.training_and_validation}, the words of the texts"
            )

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """What has to be downloaded."""
        return (self.training_text, self.validation_text, self.test_text)

    def summary(self, validation_share: float) -> DatasetSummary:
        """What the dataset holds, without reading it; rows are time steps."""
        parts = self._parts(validation_share)
        return DatasetSummary(sum(parts), self.columns, parts, self.training_text.origin)

    @property
    def _used(self) -> int:
        """Words of the joined texts that are used."""
        return self.training_and_validation if self.first_words is None else self.first_words

    def _parts(self, validation_share: float) -> tuple[int, int, int]:
        # The last word of a piece is a target only.
        steps = self._used // self.columns - 1
        test = self.test // self.columns - 1
        return (*split(steps, validation_share), test)

    def made_up(self, validation_share: float) -> Table:
        """A table of the same size with words of any order, where the texts are not to be had."""
        parts = self._parts(validation_share)
        places = np.arange(sum(parts) * self.columns + 1) * 7919 % self.words
        inputs, targets = (side_by_side(words, self.columns) for words in (places[:-1], places[1:]))
        digest = fingerprint("made up", {"words": self.words, "parts": parts})
        return Table(self.name, "language", inputs, targets, *parts, self.words, 1.0, digest)

    def load(self, validation_share: float) -> Table:
        """Load, downloading on first use: inputs and targets (steps, columns) int64, a second.

        Raises:
            UserError: no such share, files missing and offline, damaged, or not what was promised
                above.
        """
        parts = self._parts(validation_share)
        paths = [fetch(self.name, file) for file in self.files]
        training, validation, test = (read_words(path) for path in paths)
        words = sorted({*training, *validation, *test})
        numbers = {word: number for number, word in enumerate(words)}
        self._check(paths, len(training) + len(validation), len(test), len(numbers))
        joined = [*training, *validation][: self._used]
        first = side_by_side(numbered(joined, numbers), self.columns)
        second = side_by_side(numbered(test, numbers), self.columns)
        inputs = np.concatenate([first[:-1], second[:-1]])
        targets = np.concatenate([first[1:], second[1:]])
        content: dict[str, object] = {
            "files": [file.sha256 for file in self.files],
            "columns": self.columns,
            "parts": parts,
        }
        if self._used < self.training_and_validation:
            content["first_words"] = self._used
        digest = fingerprint(LOADER, content)
        return Table(self.name, "language", inputs, targets, *parts, self.words, 1.0, digest)

    def _check(self, paths: list[Path], joined_words: int, test: int, words: int) -> None:
        both = f"{paths[0]} and {paths[1].name} hold {joined_words} words"
        different = f"{paths[0]} and the texts beside it have {words} different words"
        for count, expected, text in (
            (joined_words, self.training_and_validation, both),
            (test, self.test, f"{paths[2]} holds {test} words"),
            (words, self.words, different),
        ):
            if count != expected:
                raise UserError(f"{text}, expected {expected}")


def read_words(path: Path) -> list[str]:
    """Read the words of a text, `END` after every line.

    Raises:
        UserError: not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    whole = text if text.endswith("\n") or not text else f"{text}\n"
    return whole.replace("\n", f" {END} ").split()


def numbered(text: list[str], numbers: dict[str, int]) -> np.ndarray:
    """Write a text as the numbers of its words, (N,) int64."""
    return np.fromiter(map(numbers.__getitem__, text), np.int64, len(text))


def side_by_side(stream: np.ndarray, columns: int) -> np.ndarray:
    """Cut (N,) into consecutive pieces, (N // columns, columns); the rest is dropped."""
    steps = len(stream) // columns
    return stream[: steps * columns].reshape(columns, steps).T
