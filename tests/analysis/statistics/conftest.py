"""Statistics warn of nothing: a warning is an error here."""

from __future__ import annotations

import warnings

import pytest


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
