"""From overrides in Hydra's grammar to one configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig

from hpo_bench.settings.explain import EXPLAINED, check_names, explain
from hpo_bench.settings.isolated import composed, with_home
from hpo_bench.settings.yamls import check_yamls

# What is run where nothing is asked for: data that come with the package, so that it works at once.
DEFAULT = ("method=ours_wd_lr_m", "dataset=diabetes", "repetitions=20")


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """Compose the configuration that ``hpo-bench run`` would use for these overrides.

    Args:
        overrides: in Hydra's grammar, without sweeps.
        config_dir: a further folder of groups, as ``--config-dir``.

    Raises:
        UserError: an override that fits nothing.
    """
    at_home = [with_home(override) for override in overrides]
    check_yamls(config_dir)
    check_names(at_home)
    try:
        return composed(at_home, config_dir)
    except EXPLAINED as error:
        raise explain(error, config_dir, at_home) from None


def values_of(override: str) -> list[Any]:
    """The values that an override asks for, as ``run`` reads them.

    A sweep (``a,b``, ``range(1,4)``) asks for several.

    Raises:
        UserError: it is not ``key=value`` in Hydra's grammar, or a sweep without single values.
    """
    try:
        (request,) = OverridesParser.create().parse_overrides([with_home(override)])
        if request.is_sweep_override():
            return [_unmarked(value) for value in request.sweep_iterator()]
        return [_unmarked(request.value())]
    except EXPLAINED as error:
        raise explain(error) from None


def _unmarked(value: Any) -> Any:
    """A parsed value without what the grammar notes about it."""
    if isinstance(value, list):
        return [_unmarked(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _unmarked(part) for key, part in value.items()}
    return value.text if isinstance(value, QuotedString) else value
