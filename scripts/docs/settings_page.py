"""The settings as tables: keys, defaults and comments of ``configs/config.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from hpo_bench.settings.schema import comments
from hpo_bench.settings.yamls import configs_folder, read_text, read_yaml

FILE = configs_folder() / "config.yaml"
OF_HYDRA = ("defaults", "hydra")
HEAD = "| key | default | meaning |\n| --- | --- | --- |"


def settings() -> dict[str, dict[str, Any]]:
    """Defaults by section and key; the section of keys that belong to none is ``""``."""
    content = {key: value for key, value in read_yaml(FILE).items() if key not in OF_HYDRA}
    sections: dict[str, dict[str, Any]] = {"": {}}
    for key, value in content.items():
        if isinstance(value, Mapping):
            sections[key] = {f"{key}.{name}": each for name, each in value.items()}
        else:
            sections[""][key] = value
    return sections


def undocumented() -> list[str]:
    """Keys without a comment."""
    said = dict(comments(read_text(FILE)))
    return [key for keys in settings().values() for key in keys if key not in said]


def markdown() -> str:
    """All settings, a table for each section."""
    return "\n\n".join(_tables())


def _tables() -> Iterator[str]:
    said = dict(comments(read_text(FILE)))
    for section, keys in settings().items():
        if section:
            yield f"## `{section}`"
            yield f"In short: {said[section]}."
        rows = [
            f"| `{key}` | `{_shown(value)}` | {_in_cell(said.get(key, ''))} |"
            for key, value in keys.items()
        ]
        yield "\n".join([HEAD, *rows])


def _shown(value: Any) -> str:
    """A default as one would write it in a yaml."""
    return _in_cell(yaml.safe_dump(value, default_flow_style=True).split("\n")[0])


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")
