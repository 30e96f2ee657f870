"""Values in Hydra's grammar and for a shell: what is shown can be pasted."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hpo_bench.system.quoting import in_one_line, override, quoted

SIGNS = st.sampled_from(list("\\'\"${}[](),:= ~ab1.\n\t;eE_-+#é"))
OTHERS = st.characters(
    exclude_categories=["Cs"], exclude_characters="\0"
)  # an argument cannot hold a null
TEXT = st.text(alphabet=st.one_of(SIGNS, OTHERS), max_size=12)
SINGLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT
)


def word_of(words: str) -> str:
    """The one word that a shell makes of what is pasted."""
    if not words.startswith("$'"):
        (word,) = shlex.split(words)
        return word
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("needs bash")
    pasted = subprocess.run(
        [shell, "-c", f"printf %s {words}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    return pasted.stdout.decode()


def read(words: str) -> Any:
    """The value of ``key`` as a run would see it."""
    word = word_of(words)
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", OverridesParser.create().parse_override(word).value())
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[index]


@given(st.one_of(SINGLE, st.lists(SINGLE, max_size=3)))
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_from_the_shell_and_from_hydra(value: Any) -> None:
    shown = override("key", value)
    assert len(shown.splitlines()) == 1
    found = read(shown)
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


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x1b[31mred\x00", "\\x1b[31mred\\x00"),
        ("caf\udce9\u2028\x85", "caf\\udce9\\u2028\\u0085"),
        ("👩\u200d👧 \u200fעברית $x^2$", "👩\u200d👧 \u200fעברית $x^2$"),
    ],
)
def test_what_would_tear_a_line_is_escaped_and_all_else_is_left_alone(text: str, line: str) -> None:
    assert in_one_line(text) == line
