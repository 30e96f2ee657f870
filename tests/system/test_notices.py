"""What is left out, and lines that are said once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo_bench.errors import StoreError
from hpo_bench.system import notices

ERROR = StoreError("run.json is damaged")


def test_a_run_is_left_out_only_where_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("run")
    with pytest.raises(StoreError, match="damaged"):
        notices.leave_out(folder, ERROR)
    with notices.leaving_out() as left_out:
        notices.leave_out(folder, ERROR)
        notices.leave_out(folder, ERROR)
        assert notices.is_left_out(folder)
        with notices.leaving_out_nothing():
            assert not notices.may_leave_out()
            with pytest.raises(StoreError, match="damaged"):
                notices.leave_out(folder, ERROR)
    assert left_out.folders == {folder}
    assert not notices.is_left_out(folder)
    assert capsys.readouterr().err == "left out: run.json is damaged\n"


def test_what_proves_damaged_late_makes_everything_again() -> None:
    calls: list[bool] = []

    def make() -> str:
        calls.append(notices.is_left_out(Path("run")))
        if not calls[-1]:
            notices.leave_out_late({Path("run"): ERROR})
        return "made"

    with notices.leaving_out():
        assert notices.started_again(make) == "made"
        assert calls == [False, True]
        notices.leave_out_late({})
        with pytest.raises(StoreError, match="damaged"):  # it was chosen once more
            notices.leave_out_late({Path("run"): ERROR})


def test_a_warning_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_lines", set())
    for _ in range(2):
        notices.warn("no locks here")
    assert capsys.readouterr().err == "warning: no locks here\n"
