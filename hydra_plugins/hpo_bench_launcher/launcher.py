"""The default launcher of ``hpo-bench run -m``: jobs that differ in their seed alone are computed
as one run.

``seed=range(0,200)`` and ``repetitions=200`` mean the same repetitions. With this launcher they
also store the same run
and cost the same: jobs whose overrides are equal but for ``seed``, and whose seeds ``seed … seed +
repetitions - 1`` follow on one another, become one job ``seed=<first> repetitions=<sum>``, in this
process, its blocks side by side on the cores. The run that is stored is the run that the one job
stores (its id names the first seed and the count), so that neither spelling computes again what the
other has stored. A gap in the seeds starts another run; rows are the same either way, since a
repetition depends on its seed alone. Not merged: jobs with ``init.file``, where a job's first
repetition reads row 0, and seeds that are not plain numbers.

With another launcher (``hydra/launcher=basic|joblib|submitit_local|…``) each job stays a job and
stores its own run.

Imported by every start of Hydra: nothing heavy may be imported up here, and Hydra does not take
postponed annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from hpo_bench.system.inherited import expanded

# Where the jobs of a sweep belong must be the same folder as that of their results, also behind a
# ``~``.
OmegaConf.register_new_resolver(
    "hpo_bench.expanded", lambda path: str(expanded(path)), replace=True
)


@dataclass
class HpoBenchLauncherConf:
    """``hydra/launcher=hpo_bench`` has no settings."""

    _target_: str = "hydra_plugins.hpo_bench_launcher.launcher.HpoBenchLauncher"


ConfigStore.instance().store(
    group="hydra/launcher",
    name="hpo_bench",
    node=HpoBenchLauncherConf,
    provider="hpo_bench_launcher",
)


@dataclass(frozen=True)
class Merged:
    """Jobs that are computed as one.

    Args:
        jobs: their numbers.
        overrides: of the first; all share them but for the seed.
        seed, repetitions: of the run, or None where the overrides stay as they are.
    """

    jobs: tuple[int, ...]
    overrides: tuple[str, ...]
    seed: int | None = None
    repetitions: int | None = None

    @property
    def task(self) -> list[str]:
        """Overrides of the one job."""
        if self.seed is None:
            return list(self.overrides)
        kept = [
            text for text in self.overrides if text.partition("=")[0] not in ("seed", "repetitions")
        ]
        return [*kept, f"seed={self.seed}", f"repetitions={self.repetitions}"]


def families(jobs: Sequence[Sequence[str]]) -> list[list[tuple[int, int | None]]]:
    """Group jobs whose overrides are equal but for the seed: (number, seed), in the order of
    their first jobs.
    """
    found: dict[Any, list[tuple[int, int | None]]] = {}
    for number, overrides in enumerate(jobs):
        texts = [text.partition("=") for text in overrides]
        seeds = [value for key, _, value in texts if key == "seed"]
        seed = int(seeds[0]) if len(seeds) == 1 and seeds[0].isdecimal() else None
        key: Any = (
            tuple(text for text in overrides if not text.startswith("seed="))
            if seed is not None
            else number
        )
        found.setdefault(key, []).append((number, seed))
    return list(found.values())


def merge(
    jobs: Sequence[Sequence[str]], family: Sequence[tuple[int, int | None]], repetitions: int
) -> list[Merged]:
    """Join jobs of ``repetitions`` each whose seeds follow on one another; the same seed twice is
    computed once.

    Args:
        family: one of `families`.
    """
    if family[0][1] is None:
        return [Merged((number,), tuple(jobs[number])) for number, _ in family]
    ordered = sorted((seed, number) for number, seed in family if seed is not None)
    merged: list[Merged] = []
    for seed, number in ordered:
        last = merged[-1] if merged else None
        if last is not None and last.seed is not None and last.repetitions is not None:
            begin, end = last.seed, last.seed + last.repetitions
            if seed == end or (begin <= seed and seed + repetitions <= end):
                count = max(end, seed + repetitions) - begin
                merged[-1] = Merged((*last.jobs, number), last.overrides, begin, count)
                continue
        merged.append(Merged((number,), tuple(jobs[number]), seed, repetitions))
    return merged


class HpoBenchLauncher(Launcher):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.config: DictConfig | None = None
        self.task_function: TaskFunction | None = None
        self.hydra_context: HydraContext | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs, merged; each job is given the return value of the run that it is part
        of.
        """
        setup_globals()
        assert self.config is not None
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        returns: dict[int, JobReturn] = {}
        for family in families(job_overrides):
            for merged in self._merged(job_overrides, family):
                done = self._run(merged, initial_job_idx)
                returns.update(dict.fromkeys(merged.jobs, done))
        return [returns[number] for number in range(len(job_overrides))]

    def _merged(
        self, jobs: Sequence[Sequence[str]], family: Sequence[tuple[int, int | None]]
    ) -> list[Merged]:
        first = family[0][0]
        if len(family) == 1:
            return [Merged((first,), tuple(jobs[first]))]
        config = self._compose(jobs[first])
        if config.init.file is not None or not isinstance(config.repetitions, int):
            return [Merged((number,), tuple(jobs[number])) for number, _ in family]
        return merge(jobs, family, config.repetitions)

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def _run(self, merged: Merged, initial_job_idx: int) -> JobReturn:
        assert self.hydra_context is not None
        assert self.task_function is not None
        config = self._compose(merged.task)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = initial_job_idx + merged.jobs[0]
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
