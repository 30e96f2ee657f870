"""Stored runs as tidy tables. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

from hpo_bench.errors import UserError
from hpo_bench.system.inherited import expanded

if TYPE_CHECKING:
    import pandas as pd

    from hpo_bench.store.runs import Run

# Of what `hpo_bench.analysis.frames.finals` tells of a run: how it is drawn, which is no result.
LOOKS = ("configuration", "colour", "line_style", "order")
WHOLE = ("diverged_at", "best_validation_step")  # numbers of steps, of which some may be missing


class Results:
    """Stored runs: what `run`, `sweep` and `load` return.

    Tables are read when they are asked for, and once. Repetitions that several of the runs hold
    stand in them once. Diverged repetitions are rows like all others (``status``); missing values
    are NaN or ``<NA>``.

        results = hpo_bench.load("results", dataset="uci_energy")
        results.final.groupby("method")["test_metric"].median()

    Args:
        runs: complete runs, as `hpo_bench.store.runs` reads them.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        from hpo_bench.store.runs import told_apart

        found = {run.path.absolute(): run for run in runs}
        self._runs: tuple[Run, ...] = tuple(told_apart(found.values()))

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, each with ``place`` (the folder where it is stored, alone or in a pack),
        ``config``, ``seeds``, ``code``, ``environment`` and ``seconds``.
        """
        return self._runs

    @property
    def run_ids(self) -> list[str]:
        """Names of the runs; each ends in a hash of everything that decides its numbers."""
        return [run.run_id for run in self._runs]

    @cached_property
    def final(self) -> pd.DataFrame:
        """Final values, a row per repetition (the table behind the paper's Figures 8 to 10).

        Columns: what the run is (``run_id``, ``dataset``, ``method``, its settings; also each
        other setting in which the runs differ, by its dotted key), ``seed``, ``status`` (``ok`` or
        ``diverged``), ``diverged_at`` (weight update), initial and final ``lr``, ``weight_decay``
        and ``momentum`` (as SGD uses them, not in log space), ``train_loss``, ``validation_loss``,
        ``test_loss`` (mean over the rows), ``test_metric`` (un-normalised MSE, error as a share,
        or perplexity), ``seconds`` (wall time of its block ÷ rows of the block).

        Raises:
            UserError: a stored file is damaged (it is named), or two runs disagree.
        """
        from hpo_bench.analysis import frames

        frame = frames.finals(self._runs).drop(columns=[*LOOKS])
        whole = [name for name in WHOLE if name in frame.columns]
        return self._with_settings(frame.astype(dict.fromkeys(whole, "Int64")))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Trajectories, a row per repetition and recorded step (as in the paper's Figures 9 and
        12).

        Columns: ``run_id``, ``dataset``, ``method`` (categories), each setting in which the runs
        differ, ``seed``, ``step`` (the row shows the state before that weight update),
        ``train_loss``, ``validation_loss``, ``test_loss``, ``test_metric``, ``lr``,
        ``weight_decay``, ``momentum``, ``elapsed_s``. A repetition that diverged ends there.

        Raises:
            UserError: a stored file is damaged (it is named), or two runs disagree.
        """
        from hpo_bench.analysis import frames

        frame = frames.curves(self._runs, None)
        return self._with_settings(frame.drop(columns="configuration"))

    @cached_property
    def trials(self) -> pd.DataFrame | None:
        """Trainings of searches (Bayesian optimisation, ASHA, PBT), a row each; None where no run
        is a search.

        Columns: ``run_id``, ``dataset``, ``method``, ``seed`` of the repetition, and what the
        search notes of each of its trainings.

        Raises:
            UserError: a stored file is damaged (it is named).
        """
        from hpo_bench.analysis import frames

        found = frames.trials(self._runs)
        return None if found is None else self._with_settings(found.drop(columns="configuration"))

    def summary(self) -> pd.DataFrame:
        """The table that closes ``hpo-bench run``, a row per dataset, method and configuration.

        Columns: ``method``, ``dataset`` (ids), each setting in which the runs differ, ``label``
        (of the method), ``metric`` (its label), ``median`` (a diverged repetition counts as +inf),
        ``mean`` and ``best`` of the others, in the unit in which the metric is shown, ``ok`` and
        ``repetitions``.

        Raises:
            UserError: see `final`.
        """
        import pandas as pd

        from hpo_bench.analysis.closing import Closing

        differing = self._differing
        rows = []
        for config_hash, final in self.final.groupby("config_hash", sort=False):
            run = next(run for run in self._runs if run.config_hash == config_hash)
            dataset = run.config["dataset"]
            numbers = Closing.of(final, float(dataset.get("metric_scale") or 1.0))
            row: dict[str, object] = {"method": run.method, "dataset": run.dataset}
            row |= {key: values.get(str(config_hash)) for key, values in differing.items()}
            row |= {"label": run.method_label}
            row |= {"metric": dataset.get("metric_label", "Test metric")}
            row |= {"median": numbers.median, "mean": numbers.mean, "best": numbers.best}
            row |= {"ok": numbers.ok, "repetitions": numbers.n}
            rows.append(row)
        named = ("method", "dataset", *differing, "label", "metric", "median", "mean", "best")
        return pd.DataFrame(rows, columns=[*named, "ok", "repetitions"])

    @cached_property
    def _differing(self) -> dict[str, dict[str, object]]:
        """Settings that decide numbers, in which runs of one method on one dataset differ: by
        dotted key, the values by configuration.
        """
        from hpo_bench.analysis.selection import differing_settings

        return differing_settings(self._runs)

    def _with_settings(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A table with a column for each of the settings in which the runs differ."""
        import pandas as pd

        hashes = {run.run_id: run.config_hash for run in self._runs}
        codes, names = pd.factorize(frame["run_id"])
        added = {}
        for key, values in self._differing.items():
            if key not in frame.columns:
                of_runs = pd.Series([values.get(hashes[name]) for name in names])
                added[key] = of_runs.take(codes).set_axis(frame.index)
        return frame.assign(**added) if added else frame

    def __len__(self) -> int:
        return len(self._runs)

    def __add__(self, other: Results) -> Results:
        if not isinstance(other, Results):
            return NotImplemented
        return Results((*self._runs, *other._runs))

    def __repr__(self) -> str:
        if not self._runs:
            return "Results: no runs"
        return f"{self._counts()}\n{self.summary().to_string(index=False)}"

    def _repr_html_(self) -> str:
        from html import escape

        table = self.summary().to_html(index=False, border=0) if self._runs else ""
        return f"<p>{escape(self._counts())}</p>{table}"

    def _counts(self) -> str:
        repetitions = len({(run.config_hash, seed) for run in self._runs for seed in run.seeds})
        runs = len(self._runs)
        return (
            f"Results: {runs} run{'s' * (runs != 1)}, "
            f"{repetitions} repetition{'s' * (repetitions != 1)}"
        )


def load(
    results_dir: str | PathLike[str] = "results",
    *,
    dataset: str | Sequence[str] | None = None,
    method: str | Sequence[str] | None = None,
    where: Mapping[str, object] | None = None,
) -> Results:
    """What is stored of the complete runs of a folder. Imports no torch, and reads no table yet.

        results = hpo_bench.load("results", dataset="uci_energy", method=["random", "ours_wd_lr_m"])
        results.summary()

    Args:
        results_dir: folder of the results, as of ``hpo-bench run``.
        dataset, method: ids to keep, one or several; None for all.
        where: settings that the runs must have, by dotted key: ``{"update_interval": 10}``.

    Raises:
        UserError: no run fits (the nearest names are told), or a ``run.json`` is damaged.
    """
    from hpo_bench.analysis.selection import find

    folder = expanded(_text("results_dir", results_dir))
    datasets, methods = _names("dataset", dataset), _names("method", method)
    return Results(find(folder, datasets=datasets, methods=methods, where=where))


def _text(key: str, value: object) -> str:
    from hpo_bench.api.overrides import plain

    found = plain(key, value)
    if not isinstance(found, str):
        raise UserError(f"{key}={value!r}: must be text or a path")
    return found


def _names(key: str, value: object) -> list[str] | None:
    """Ids, from one or several."""
    if value is None:
        return None
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return [_text(key, name) for name in several]
