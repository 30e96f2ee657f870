"""Configurations as the tests of settings look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hpo_bench.settings.compose import compose
from hpo_bench.settings.yamls import configs_folder

METHODS = sorted(path.stem for path in (configs_folder() / "method").glob("*.yaml"))


def resolved(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    """A configuration as plain containers."""
    content = OmegaConf.to_container(compose(overrides, config_dir), resolve=True)
    assert isinstance(content, dict)
    return content  # type: ignore[return-value]
