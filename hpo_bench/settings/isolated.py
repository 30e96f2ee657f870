"""Hydra asked to compose, beside a Hydra that the caller has initialised, and without its errors
explained.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import DictConfig

from hpo_bench.settings.yamls import configs_folder
from hpo_bench.system.inherited import expanded
from hpo_bench.system.quoting import quoted

VERSION_BASE = "1.3" if hydra.__version__.startswith("1.3") else None
_COMPOSING = threading.Lock()  # Hydra has one state for the whole process


def composed(
    overrides: Sequence[str], config_dir: Path | None, *, whole: bool = False
) -> DictConfig:
    """What Hydra composes; the ``whole`` of it has its own section, too."""
    extra = (
        [f"hydra.searchpath={quoted([f'file://{config_dir.absolute()}'])}"] if config_dir else []
    )
    with (
        _COMPOSING,
        hydra_to_ourselves(),
        hydra.initialize_config_dir(str(configs_folder()), version_base=VERSION_BASE),
    ):
        return hydra.compose("config", overrides=[*extra, *overrides], return_hydra_config=whole)


@contextlib.contextmanager
def hydra_to_ourselves() -> Iterator[None]:
    """Set the Hydra that the caller has initialised aside, and put it back in the end: a process
    has only one.
    """
    theirs, base = GlobalHydra.instance(), VersionBase.instance().getbase()
    GlobalHydra.set_instance(_new(GlobalHydra))
    try:
        yield
    finally:
        GlobalHydra.set_instance(theirs)
        VersionBase.instance().version_base = base


def _new(singleton: type[GlobalHydra]) -> GlobalHydra:
    """A second one of what Hydra makes once."""
    made = singleton.__new__(singleton)
    made.__init__()  # type: ignore[misc]
    return made


def with_home(override: str) -> str:
    """An override whose value begins with ``~`` with the home folder in its place.

    Hydra's grammar has no bare value with a tilde, so that nothing else can be meant.

    Raises:
        UserError: there is no such home folder.
    """
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"~[^,()\[\]{}'\"]*", value):
        return override
    return f"{key}={quoted(str(expanded(value)))}"
