"""What the repository keeps of its own runs: complete, small, and what docs/reproduction.md says of them."""

import importlib.util
import sys
from pathlib import Path

import pytest

from hpo_bench.analysis import claims, load
from hpo_bench.store import runs_folder, scan

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGE = ROOT / "docs" / "reproduction.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="results and docs are not part of what is installed")


def kept():
    return [run for run in scan(RESULTS) if run.status == "complete"]


@pytest.fixture(scope="module")
def reproduction():
    spec = importlib.util.spec_from_file_location("reproduction", ROOT / "scripts" / "reproduction.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["reproduction"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reproduction"]


def test_the_kept_runs_are_readable_clean_and_small():
    runs = kept()
    assert len({run.dataset for run in runs}) >= 1
    assert not any(run.code["dirty"] for run in runs)
    assert set(load.finals(runs)["status"]) <= {"ok", "diverged"}
    assert sum(path.stat().st_size for path in runs_folder(RESULTS).rglob("*.*")) < 40e6


def test_the_page_says_what_the_kept_runs_say(reproduction):
    text = PAGE.read_text(encoding="utf-8")
    assert {name for _, name, _ in reproduction.BLOCK.findall(text)} == set(reproduction.BLOCKS)
    assert reproduction.written(text, RESULTS) == text


def test_medians_on_uci_energy_are_those_of_the_authors_code():
    found = [claim for claim in claims.claims(load.find(RESULTS)) if "the authors' code" in claim.text]
    assert len(found) == len(claims.EXPECTED)
    assert {claim.verdict for claim in found} == {"supported"}
