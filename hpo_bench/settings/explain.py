"""Explaining in one line what Hydra refuses: the key, and what it might have been."""

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

# Launchers of Hydra and the extra of this package that each comes with.
LAUNCHER_EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}
# What Hydra raises where overrides or yamls are wrong.
EXPLAINED = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def explain(
    error: BaseException, config_dir: Path | None = None, overrides: Sequence[str] = ()
) -> UserError:
    """Say in one line which override is at fault and what the nearest valid names are.

    Args:
        error: one of `EXPLAINED`.
        config_dir: a further folder that was searched.
        overrides: all that were given.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, OverrideParseException):
        return _ungrammatical(error)
    if (
        isinstance(error, MissingConfigException)
        and error.missing_cfg_file
        and error.options is not None
    ):
        return _no_such_option(error.missing_cfg_file, error.options)
    # What else Hydra refuses, it says by its text alone.
    text = str(error)
    if match := re.match(r"Could not override '([^']+)'", text):
        if match[1].startswith("hydra."):
            return _no_such_hydra_key(match[1], config_dir, overrides)
        return UserError(f"{match[1]}: no such setting; {_near_keys(match[1], config_dir)}")
    if match := re.match(
        r"Ambiguous value for argument '([^']+)'|Sweep parameters '(.+)' requires", text
    ):
        return UserError(f"{match[1] or match[2]} names several values: add -m to run each of them")
    lines = [one_line(cause) for cause in causes(error)]
    return UserError("; ".join(filter(None, lines)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def one_line(error: BaseException) -> str:
    """An error's text in one line, without what OmegaConf notes for its own developers."""
    lines = [line.strip() for line in str(error).splitlines()]
    noise = ("full_key:", "object_type=", "reference_type=")
    return " ".join(line for line in lines if line and not line.startswith(noise))


def _no_such_option(file: str, options: Sequence[str]) -> UserError:
    """Explain a group's option that is not there, such as ``dataset/boston``."""
    group, _, name = file.rpartition("/")
    if group == "hydra/launcher" and name in LAUNCHER_EXTRAS:
        extra = LAUNCHER_EXTRAS[name]
        return UserError(f"{group}={name}: is not installed; pip install 'hpo-bench[{extra}]'")
    return UserError(
        f"{group}={name}: no such {group.rpartition('/')[2]}; {nearest(name, options)}"
    )


def check_names(overrides: Iterable[str]) -> None:
    """Make sure that groups are given names: of a list, Hydra would take the last alone.

    Raises:
        UserError: one is given something else; names it.
    """
    kinds = {type(None): "null", list: "a list: several are sweeps, as a,b"}
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or key not in groups():
            continue
        try:
            name = OverridesParser.create().parse_override(word).value()
        except HydraException:
            continue  # told of where it is composed
        if isinstance(name, bool | int | float | list | None):
            what = kinds.get(type(name), "a number or truth value")
            raise UserError(f"{key}={value}: must be a name, not {what}")


# A function of the grammar, or a mapping, with something wrong in it: not meant as text.
_UNFINISHED = re.compile(
    r"\{.*\}$|(range|choice|interval|glob|sort|shuffle|tag|int|float|str|bool)\(", re.DOTALL
)


def _ungrammatical(error: OverrideParseException) -> UserError:
    """Explain an override that Hydra's grammar does not know, by what could be meant."""
    key, equals, value = error.override.partition("=")
    refusal = f"cannot read {error.override!r} as key=value"
    if re.search(r"^,|,,|,$", value):
        without_gaps = re.sub(",+", ",", value).strip(",") or 0
        if _parses(f"{key}={without_gaps}"):
            return UserError(f"{refusal}: a value is missing before or after a comma")
    unfinished = _UNFINISHED.match(value) or (value[:1] in ("[", "{") and not _is_balanced(value))
    if equals and key.strip() and not unfinished and _parses(f"{key}={quoted(_as_meant(value))}"):
        suggestion = pasteable(key, _as_meant(value))
        return UserError(
            f"{refusal}: a value with such characters needs quotation marks: {suggestion}"
        )
    reason = error.message.splitlines()[0]
    if "override" in reason:  # it says once more that the override cannot be read
        return UserError(refusal)
    return UserError(f"{refusal}: {reason}")


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
    """Explain a key of Hydra's own that is not there, by what its section has instead."""
    # The launcher and the sweeper that were chosen have settings of their own.
    choices = [each for each in overrides if each.startswith("hydra/") and "," not in each]
    composition = composed(choices, config_dir, whole=True)
    section, _, name = key.rpartition(".")
    node = _section_of_hydra(composition, section)
    while node is None:  # the section itself is the mistake
        section, _, name = section.rpartition(".")
        node = _section_of_hydra(composition, section)
    names = _settings_of(node)
    if section == "hydra.launcher" and not get_close_matches(name, names):
        return UserError(f"{key}: no such setting; {_of_launchers(name, names)}")
    advice = nearest(name, names) if names else f"it is empty, +{key}=… adds one"
    return UserError(f"{key}: no such setting in {section}; {advice}")


def _section_of_hydra(composed: DictConfig, section: str) -> Mapping[str, Any] | None:
    node = OmegaConf.select(composed, section, throw_on_missing=False)
    return node if OmegaConf.is_dict(node) else None


def _settings_of(section: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in section if not str(name).startswith("_")]


def _of_launchers(name: str, names: Sequence[str]) -> str:
    """Say which launchers have a setting by some such name, where the chosen one has none."""
    candidates = []
    for file in ConfigStore.instance().list("hydra/launcher"):
        there = _settings_of(ConfigStore.instance().load(f"hydra/launcher/{file}").node)
        close = get_close_matches(name, there, n=1)
        candidates += [f"{each} of hydra/launcher={file.removesuffix('.yaml')}" for each in close]
    allowed = "the launcher that is chosen has none"
    if names:
        allowed = f"allowed: {', '.join(sorted(names))}"
    if candidates:
        return f"did you mean {' or '.join(candidates)}? {allowed.capitalize()}"
    return allowed


def _near_keys(key: str, config_dir: Path | None) -> str:
    """Say what is allowed in a key's section, nearest first.

    For a key without a section: which sections have it.
    """
    section, _, leaf = key.rpartition(".")
    leaves_of: dict[str, set[str]] = {}
    elsewhere = []
    for option in sorted(set(_all_keys(config_dir))):
        above, _, last = option.rpartition(".")
        leaves_of.setdefault(above, set()).add(last)
        if option.endswith(f".{leaf}"):
            elsewhere.append(option)
    if not section and elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    if section in leaves_of:
        return nearest(leaf, leaves_of[section])
    sections = set(filter(None, leaves_of))
    return f"there is no section {section}; {nearest(section, sections)}"


def _all_keys(config_dir: Path | None) -> Iterator[str]:
    """Groups and dotted keys of all yamls; one that cannot be read is passed over."""
    yield from groups()
    for folder in filter(None, (configs_folder(), config_dir)):
        files = [*folder.glob("config.yaml")]
        for group in groups():
            files += (folder / group).glob("*.yaml")
        for file in files:
            with contextlib.suppress(UserError):
                content = read_yaml(file)
                for part in ("defaults", "hydra"):  # Hydra's own
                    content.pop(part, None)
                yield from _with_sections(key for key, _ in identity.flat(content))


def _with_sections(keys: Iterable[str]) -> set[str]:
    """Dotted keys and the sections that they lie in."""
    everything: set[str] = set()
    for key in keys:
        words = key.split(".")
        everything.update(".".join(words[:length]) for length in range(1, len(words) + 1))
    return everything
