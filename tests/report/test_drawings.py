"""The images of the page."""

import io
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import matplotlib.pyplot as plt
import numpy as np

from hpo_bench.report.drawings import compact, data_uri

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


def test_an_image_in_an_attribute_is_read_back_byte_for_byte():
    image = compact(drawn()) + "<!-- 100 % of 'this' & \"that\" #1 – ✓ -->".encode()
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append(dict(attrs)["src"])

    Reader().feed(f'<img src="{data_uri(image)}">')
    kind, _, content = found[0].partition(",")
    assert kind == "data:image/svg+xml"
    assert unquote_to_bytes(content) == image
    assert len(found[0]) < 1.25 * len(image)  # base64: 4/3
