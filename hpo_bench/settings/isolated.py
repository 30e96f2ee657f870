"""Asking Hydra to compose, also inside a program that has initialised a Hydra of its own.

Errors are Hydra's own; `hpo_bench.settings.explain` puts them into words.
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

# None: a later Hydra goes by its own defaults.
VERSION_BASE = "1.3" if hydra.__version__.startswith("1.3") else None
_COMPOSING = threading.Lock()  # Hydra has one state for the whole process


def composed(
    overrides: Sequence[str], config_dir: Path | None, *, whole: bool = False
) -> DictConfig:
    """Compose a configuration from the package's yamls.

    Args:
        overrides: in Hydra's grammar.
        config_dir: a further folder of yamls.
        whole: whether Hydra's own section is part of what is returned.

    Raises:
        Exception: whatever Hydra raises (`hpo_bench.settings.explain.EXPLAINED`).
    """
    overrides = list(overrides)
    if config_dir is not None:
        folder = f"file://{config_dir.absolute()}"
        overrides.insert(0, f"hydra.searchpath={quoted([folder])}")
    with (
        _COMPOSING,
        hydra_to_ourselves(),
        hydra.initialize_config_dir(str(configs_folder()), version_base=VERSION_BASE),
    ):
        return hydra.compose("config", overrides=overrides, return_hydra_config=whole)


@contextlib.contextmanager
def hydra_to_ourselves() -> Iterator[None]:
    """Set the Hydra that the caller has initialised aside, and put it back in the end."""
    # Hydra has one state for a process, and refuses to be initialised twice.
    theirs, base = GlobalHydra.instance(), VersionBase.instance().getbase()
    GlobalHydra.set_instance(_new(GlobalHydra))
    try:
        yield
    finally:
        GlobalHydra.set_instance(theirs)
        VersionBase.instance().version_base = base


def _new(singleton: type[GlobalHydra]) -> GlobalHydra:
    """Make a second one of what Hydra makes once."""
    instance = singleton.__new__(singleton)
    instance.__init__()  # type: ignore[misc]
    return instance


def with_home(override: str) -> str:
    """Put the home folder in the place of a ``~`` that an override's value begins with.

    Raises:
        UserError: there is no such home folder.
    """
    key, equals, value = override.partition("=")
    # Hydra's grammar has no bare value with a tilde, so that nothing else can be meant.
    if not equals or not re.fullmatch(r"~[^,()\[\]{}'\"]*", value):
        return override
    return f"{key}={quoted(str(expanded(value)))}"
