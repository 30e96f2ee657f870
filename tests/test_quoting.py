"""Values in Hydra's grammar and for a shell: what is shown can be pasted."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hpo_bench.quoting import override, quoted

SIGNS = st.sampled_from(list("\\'\"${}[](),:= ~ab1.\n\t;eE_-+#é"))
TEXT = st.text(alphabet=st.one_of(SIGNS, st.characters(exclude_categories=["Cs"])), max_size=12)
SINGLE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)


def read(words: str) -> Any:
    """The value of ``key`` as a run would see it."""
    (word,) = shlex.split(words)
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", OverridesParser.create().parse_override(word).value())
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[index]


@given(st.one_of(SINGLE, st.lists(SINGLE, max_size=3)))
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_from_the_shell_and_from_hydra(value: Any) -> None:
    found = read(override("key", value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "it's.csv",
        "data(1).csv",
        "ünï.csv",
        "a\\",
        '\\"',
        "${x}",
        "\\${x}",
        "1e3",
        "",
        "null",
        "TRUE",
        ".5",
        "~/x",
        "a,b",
    ],
)
def test_text_stays_text(value: str) -> None:
    assert read(override("key", value)) == value


@pytest.mark.parametrize("value", ["results", "/tmp/results-2", "uci_energy", "./a.csv"])
def test_plain_words_need_no_quotation_marks(value: str) -> None:
    assert quoted(value) == value


def test_mappings() -> None:
    assert read(override("key", {"a": [1, "x,y"], "c": None})) == {"a": [1, "x,y"], "c": None}
