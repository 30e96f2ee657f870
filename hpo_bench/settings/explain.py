"""One line for what Hydra refuses: the key, and what it might have been."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpo_bench.errors import UserError, nearest
from hpo_bench.settings import identity
from hpo_bench.settings.isolated import composed
from hpo_bench.settings.yamls import configs_folder, groups, read_yaml
from hpo_bench.system.quoting import override as pasteable
from hpo_bench.system.quoting import quoted

LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


EXPLAINED = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    ValueError,
)  # Hydra raises all of these


def explain(
    error: BaseException, config_dir: Path | None = None, overrides: Sequence[str] = ()
) -> UserError:
    """One line that names the override at fault and the nearest valid names.

    Args:
        error: one of `EXPLAINED`.
        config_dir: a further folder that was searched.
        overrides: all that were given.
    """
    text = str(error)
    if isinstance(error, UserError):
        return error
    if isinstance(error, OverrideParseException):
        return _ungrammatical(error)
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and name in LAUNCHER_EXTRAS:
            return UserError(
                f"{group}={name}: is not installed; pip install 'hpo-bench[{LAUNCHER_EXTRAS[name]}]'"
            )
        return UserError(
            f"{group}={name}: no such {group.rpartition('/')[2]}; {nearest(name, error.options)}"
        )
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1].startswith("hydra."):
            return _no_such_hydra_key(match[1], config_dir, overrides)
        return UserError(f"{match[1]}: no such setting; {_near_keys(match[1], config_dir)}")
    if match := re.match(
        r"Ambiguous value for argument '([^']+)'|Sweep parameters '(.+)' requires", text
    ):
        return UserError(f"{match[1] or match[2]} names several values: add -m to run each of them")
    return UserError("; ".join(filter(None, (_one_line(cause) for cause in _causes(error)))))


# A function of the grammar, or a mapping, with something wrong in it: not meant as text.
_UNFINISHED = re.compile(
    r"\{.*\}$|(range|choice|interval|glob|sort|shuffle|tag|int|float|str|bool)\(", re.DOTALL
)


def _ungrammatical(error: OverrideParseException) -> UserError:
    """What could be meant by an override that Hydra's grammar does not know, as it can be pasted
    into a shell.
    """
    key, equals, value = error.override.partition("=")
    said = f"cannot read {error.override!r} as key=value"
    meant = pasteable(key, _as_meant(value))
    unfinished = _UNFINISHED.match(value) or (value[:1] in ("[", "{") and not _is_balanced(value))
    if re.search(r"^,|,,|,$", value) and _parses(
        f"{key}={re.sub(',+', ',', value).strip(',') or 0}"
    ):
        return UserError(f"{said}: a value is missing before or after a comma")
    if equals and key.strip() and not unfinished and _parses(f"{key}={quoted(_as_meant(value))}"):
        return UserError(f"{said}: a value with such characters needs quotation marks: {meant}")
    reason = error.message.splitlines()[0]
    return UserError(said + f": {reason}" * ("override" not in reason))


def _is_balanced(value: str) -> bool:
    """Whether as many brackets close as open."""
    return value.count("[") == value.count("]") and value.count("{") == value.count("}")


def _as_meant(value: str) -> Any:
    """A value that the grammar does not know, as a list where it has brackets, else as text."""
    if value.startswith("[") and value.endswith("]"):
        return [_as_meant(part.strip()) for part in value[1:-1].split(",")]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _no_such_hydra_key(key: str, config_dir: Path | None, overrides: Sequence[str]) -> UserError:
    """What there is instead of a key of Hydra's own, with the launcher and sweeper that were
    chosen.
    """
    chosen = [
        override for override in overrides if override.startswith("hydra/") and "," not in override
    ]
    found = composed(chosen, config_dir, whole=True)
    section, _, wanted = key.rpartition(".")
    node = _section_of_hydra(found, section)
    while node is None:  # the section itself is the mistake
        section, _, wanted = section.rpartition(".")
        node = _section_of_hydra(found, section)
    names = _settings_of(node)
    if section == "hydra.launcher" and not get_close_matches(wanted, names):
        return UserError(f"{key}: no such setting; {_of_launchers(wanted, names)}")
    told = nearest(wanted, names) if names else f"it is empty, +{key}=… adds one"
    return UserError(f"{key}: no such setting in {section}; {told}")


def _section_of_hydra(composed: DictConfig, section: str) -> Mapping[str, Any] | None:
    node = OmegaConf.select(composed, section, throw_on_missing=False)
    return node if OmegaConf.is_dict(node) else None


def _settings_of(section: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in section if not str(name).startswith("_")]


def _of_launchers(wanted: str, names: Sequence[str]) -> str:
    """Which launchers have a setting by some such name, where the chosen one has none."""
    found = []
    for file in ConfigStore.instance().list("hydra/launcher"):
        there = _settings_of(ConfigStore.instance().load(f"hydra/launcher/{file}").node)
        close = get_close_matches(wanted, there, n=1)
        found += [f"{name} of hydra/launcher={file.removesuffix('.yaml')}" for name in close]
    own = (
        f"allowed: {', '.join(sorted(names))}" if names else "the launcher that is chosen has none"
    )
    return f"did you mean {' or '.join(found)}? {own.capitalize()}" if found else own


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(noise))


def _near_keys(key: str, config_dir: Path | None) -> str:
    """What is allowed in the key's section, nearest first; for a bare key also where a section has
    it.
    """
    keys = set(_all_keys(config_dir))
    section, _, leaf = key.rpartition(".")
    level = {option.rpartition(".")[2] for option in keys if option.rpartition(".")[0] == section}
    elsewhere = sorted(option for option in keys if option.endswith(f".{leaf}"))
    if not section and elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    return (
        nearest(leaf, level)
        if level
        else f"there is no section {section}; {nearest(section, _sections(keys))}"
    )


def _sections(keys: Iterable[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys if "." in key}


def _all_keys(config_dir: Path | None) -> Iterator[str]:
    """Groups and dotted keys of all yamls; one that cannot be read is passed over."""
    yield from groups()
    for folder in filter(None, (configs_folder(), config_dir)):
        files = (file for group in groups() for file in (folder / group).glob("*.yaml"))
        for file in (*folder.glob("config.yaml"), *files):
            with contextlib.suppress(UserError):
                content = read_yaml(file)
                own = {
                    key: value for key, value in content.items() if key not in ("defaults", "hydra")
                }
                yield from _with_sections(key for key, _ in identity.flat(own))


def _with_sections(keys: Iterable[str]) -> set[str]:
    """Dotted keys and the sections that they lie in."""
    words = [key.split(".") for key in keys]
    return {".".join(parts[:length]) for parts in words for length in range(1, len(parts) + 1)}
