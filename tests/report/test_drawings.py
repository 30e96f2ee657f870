"""The images of the page."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np

from hpo_bench.report.drawings import compact

NUMBER = re.compile(rb"-?\d+\.?\d*")
OUTLINE = re.compile(rb' d="([^"]*)"')


def drawn() -> bytes:
    figure, axes = plt.subplots()
    axes.step(*np.random.default_rng(0).random((2, 300)))
    axes.scatter(*np.random.default_rng(1).random((2, 30)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()


def test_compact_outlines_are_the_same_to_a_hundredth_of_a_point_and_all_else_is_kept():
    before = drawn()
    after = compact(before)
    assert len(after) < 0.8 * len(before)
    assert OUTLINE.sub(b"", after) == OUTLINE.sub(b"", before)
    for old, new in zip(OUTLINE.findall(before), OUTLINE.findall(after), strict=True):
        assert re.findall(rb"[A-Za-z]", new) == re.findall(rb"[A-Za-z]", old)
        points = [np.array(NUMBER.findall(path), dtype=float) for path in (old, new)]
        np.testing.assert_allclose(points[1], points[0], atol=0.01)
