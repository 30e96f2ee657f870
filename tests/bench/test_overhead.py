"""The measurement of the runner's own cost."""

from __future__ import annotations

from hpo_bench.bench import overhead as bench


def test_overhead_is_measured_without_training() -> None:
    original = bench.PARTS
    bench.PARTS = 1
    try:
        measured = bench.overhead(repetitions=2, hyperparameter_updates=2)
    finally:
        bench.PARTS = original
    assert measured.repetitions == 2 * len(bench.ONE_PASS)
    assert measured.total == measured.planning + measured.writing + measured.indexing
    assert (
        min(measured.planning, measured.writing, measured.indexing, measured.cpu, measured.resume)
        > 0
    )
