"""``hpo-bench reproduce`` and ``status EXPERIMENT``: plans, resumes, exit codes and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo_bench.experiments import estimate, expand
from hpo_bench.store.runs import scan
from hpo_bench.store.writer import Writer

Call = Callable[..., tuple[int, str, str]]
TINY = (
    "sensitivity",
    "dataset=diabetes",
    "repetitions=2",
    "hyperparameter_updates=2",
    "update_interval=2",
    "look_back=1,2",
    "--scale",
    "smoke",
)


def test_a_dry_run_prints_the_plan_and_computes_nothing(call: Call) -> None:
    code, out, _ = call("reproduce", *TINY, "--dry-run")
    assert code == 0
    assert "to compute: 5 runs, 10 repetitions, about" in out
    assert [line.split()[:3] for line in out.splitlines()[2:5]] == [
        ["random", "diabetes", "random"],
        ["ours", "diabetes", "ours_wd_lr_m"],
        ["exact", "diabetes", "diff_through_opt"],
    ]
    assert not Path("results").exists()


def test_an_experiment_is_computed_once_and_known_afterwards(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call("reproduce", *TINY)
    assert (code, "computed 5 runs (10 repetitions), 0 failed" in out) == (0, True), err
    assert {run.method for run in scan("results")} == {"random", "ours_wd_lr_m", "diff_through_opt"}
    code, out, _ = call("status", "sensitivity")
    assert out.splitlines()[1].split()[-6:] == ["5", "5", "10", "0", "0", "0"]
    monkeypatch.setattr(expand, "expand", None)  # a finished experiment is not planned again
    code, out, _ = call("reproduce", *TINY)
    assert (code, "all 5 runs are stored, nothing to compute" in out) == (0, True)
    monkeypatch.undo()


def test_another_scale_keeps_what_it_shares(call: Call) -> None:
    assert call("reproduce", *TINY, "method=random", "--results", "r")[0] == 0
    code, out, _ = call("reproduce", *TINY, "--results", "r")
    assert code == 0
    assert "5 runs, 1 stored; to compute: 4 runs" in out


def failing(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    from hpo_bench.running.trainer import Trainer

    good = Trainer.block

    def block(self: Trainer, *arguments: Any) -> Any:
        if self.settings.method.name == method:
            raise RuntimeError("a cosmic ray")
        return good(self, *arguments)

    monkeypatch.setattr(Trainer, "block", block)


def test_failed_runs_are_told_and_can_be_computed_alone(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo_bench.running.trainer import Trainer

    good = Trainer.block
    failing(monkeypatch, "ours_wd_lr_m")
    monkeypatch.setattr(estimate, "_measure", lambda *_: estimate.Rate(0.0, 0.0))
    code, out, err = call("reproduce", *TINY)
    assert code == 1
    assert "computed 3 runs (6 repetitions), 2 failed" in out
    assert "a cosmic ray" in err
    assert err.splitlines()[-1].startswith(
        "error: 2 runs failed (--retry-failed computes them again)"
    )
    assert call("status", "sensitivity")[1].splitlines()[1].split()[-6:] == [
        "5",
        "3",
        "6",
        "2",
        "0",
        "0",
    ]
    monkeypatch.setattr(Trainer, "block", good)
    gone = next(run for run in scan("results") if run.method == "random")
    (gone.path / "run.json").unlink()
    code, out, _ = call("reproduce", *TINY, "--retry-failed")
    assert code == 0
    assert "to compute: 2 runs" in out
    assert "computed 2 runs (4 repetitions), 0 failed" in out
    assert "to compute: 1 runs" in call("reproduce", *TINY)[1]


def test_force_computes_again(call: Call) -> None:
    assert call("reproduce", *TINY, "method=random")[0] == 0
    (before,) = scan("results")
    time = (before.path / "run.json").stat().st_mtime_ns
    code, out, _ = call("reproduce", *TINY, "method=random", "--force")
    assert (code, "computed 1 runs" in out) == (0, True)
    assert (before.path / "run.json").stat().st_mtime_ns > time


def test_what_is_missing_is_one_line_and_the_rest_runs(call: Call) -> None:
    words = (
        "uci_main",
        "dataset=diabetes",
        "repetitions=1",
        "hyperparameter_updates=1",
        "--scale",
        "smoke",
    )
    code, out, err = call("reproduce", *words, "method=random,not_yet")
    assert code == 1
    assert "computed 1 runs" in out
    assert "missing: method=not_yet: no such method (needed by part main of uci_main)" in err
    assert err.splitlines()[-1] == "error: incomplete: method=not_yet missing, see above"
    code, out, err = call("reproduce", *words, "method=not_yet", "--dry-run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "method=not_yet: no such method" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "sensitivty"], "sensitivty: no such experiment; did you mean sensitivity"),
        (["reproduce", "sensitivity", "--scale", "tiny"], "--scale tiny"),
        (["reproduce", *TINY, "look_bakc=2"], "look_bakc: no such setting; did you mean look_back"),
        (["reproduce", *TINY, "update_interval=0"], "update_interval=0"),
        (
            ["reproduce", *TINY, "--force", "--retry-failed"],
            "--force and --retry-failed do not go together",
        ),
        (["reproduce", *TINY, "--on", "moon"], "--on moon"),
        (
            ["status", "sensitivty"],
            "status sensitivty: no such experiment; did you mean sensitivity",
        ),
        (
            ["run", "experiment=sensitivty"],
            "sensitivty: no such experiment; did you mean sensitivity",
        ),
        (["run", "experiment=sensitivity", "--cfg", "job"], "--cfg: does not go with experiment="),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: list[str], message: str) -> None:
    code, _, err = call(*arguments)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert message in err


def test_run_with_an_experiment_is_reproduce(call: Call) -> None:
    words = [word for word in TINY[1:] if not word.startswith(("--", "smoke"))]
    code, out, _ = call("run", "experiment=sensitivity", "scale=smoke", "method=random", *words)
    assert (code, "computed 1 runs" in out) == (0, True)
    assert [run.method for run in scan("results")] == ["random"]


def test_status_of_an_experiment_that_was_not_begun(call: Call) -> None:
    code, out, _ = call("status", "uci_main")
    assert (code, "not begun" in out) == (0, True)


def test_status_of_a_begun_experiment(call: Call) -> None:
    assert call("reproduce", *TINY, "method=random")[0] == 0
    (record,) = Path("results/experiments").glob("*.json")
    content = json.loads(record.read_text())
    Writer("results", "unfinished-one").__enter__()
    content["run_ids"] += ["unfinished-one", "not-begun"]
    record.write_text(json.dumps(content))
    Path("results/experiments/sensitivity-broken.json").write_text("{")
    assert call("status", "sensitivity")[1].splitlines()[1].split()[-6:] == [
        "3",
        "1",
        "2",
        "0",
        "1",
        "1",
    ]
