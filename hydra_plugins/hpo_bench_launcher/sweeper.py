"""Hydra's basic sweeper, but for what it tells of failures: all that failed, not the first alone.

Imported by every start of Hydra: nothing heavy may be imported up here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from hpo_bench.errors import Failed


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

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
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
        self.launcher = Watched(self.launcher)
