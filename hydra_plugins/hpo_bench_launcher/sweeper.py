"""Hydra's basic sweeper, but for what it tells: of all jobs that failed, and of a sweep that has
none.

Imported by every start of Hydra: nothing heavy may be imported up here.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from hpo_bench.errors import Failed, UserError

JOBS = 1_000_000  # at once: Hydra lists them all before it starts the first


@dataclass
class HpoBenchSweeperConf:
    """``hydra/sweeper=hpo_bench`` has the settings of Hydra's basic one."""

    _target_: str = "hydra_plugins.hpo_bench_launcher.sweeper.HpoBenchSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="hpo_bench", node=HpoBenchSweeperConf, provider="hpo_bench_launcher"
)


class Watched:
    """A launcher whose jobs' failures are raised together.

    Args:
        launcher: starts the jobs.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Start the jobs and wait for them.

        Raises:
            Failed: some of them failed; in the order of the jobs.
        """
        returns = self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        failures = [done._return_value for done in returns if done.status == JobStatus.FAILED]
        if failures:
            raise Failed(failures)
        return returns


class HpoBenchSweeper(BasicSweeper):
    """See the module."""

    def setup(self, **given: Any) -> None:
        """Take what Hydra gives."""
        super().setup(**given)
        assert self.launcher is not None
        self.launcher: Any = Watched(self.launcher)

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs of a sweep.

        Raises:
            UserError: there are none, since an override names no value (``range(3,0)``, a ``glob``
                that nothing fits), or more than `JOBS`.
        """
        sweeps = {
            override.get_key_element(): override for override in overrides
        }  # the last of a key counts
        counts = {
            key: _count(override)
            for key, override in sweeps.items()
            if override.is_discrete_sweep()
        }
        for key, count in counts.items():
            if count == 0:
                raise UserError(
                    f"{sweeps[key].input_line}: names no value, so there is nothing to run"
                )
        if math.prod(counts.values()) > JOBS:
            largest = max(counts, key=counts.__getitem__)
            raise UserError(
                f"{sweeps[largest].input_line}: more than {JOBS} jobs, start them in parts"
            )
        return BasicSweeper.split_arguments(overrides, max_batch_size)


def _count(sweep: Override) -> int:
    """How many values a sweep has; they are not made to be counted."""
    value = sweep.value()
    if isinstance(value, RangeSweep) and value.start is not None and value.stop is not None:
        return (
            max(0, math.ceil((value.stop - value.start) / value.step)) if value.step else JOBS + 1
        )
    return sum(1 for _ in itertools.islice(sweep.sweep_iterator(), JOBS + 1))
