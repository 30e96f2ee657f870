"""The yaml files of the configuration: where they lie, and what they hold."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from hpo_bench.errors import UserError

# How large an experiment can be carried out; cpu: where paper needs a GPU or days.
SCALES = ("smoke", "small", "cpu", "paper")
SCALES_OF_ALL = ("smoke", "small", "paper")  # of every experiment


def check_yamls(config_dir: Path | None) -> None:
    """Make sure that Hydra can read the yamls of a further folder.

    Raises:
        UserError: one is not UTF-8, or begins with a byte-order mark, behind which Hydra overlooks
            ``# @package``.
    """
    if config_dir is None:
        return
    of_groups = [f"{group}/*.yaml" for group in groups()]
    for pattern in ("*.yaml", *of_groups, "hydra/*/*.yaml"):
        for file in sorted(config_dir.glob(pattern)):
            read_text(file)
            with file.open("rb") as content:
                begins = content.read(len(codecs.BOM_UTF8))
            if begins == codecs.BOM_UTF8:
                raise UserError(
                    f"{file} begins with a byte-order mark; save it as UTF-8 without one"
                )


def groups() -> list[str]:
    """The names of the groups that can be chosen: those of the defaults list."""
    defaults = read_yaml(configs_folder() / "config.yaml")["defaults"]
    names = [name for entry in defaults if isinstance(entry, dict) for name in entry]
    return [name for name in names if " " not in name]  # not "override …", nor "optional …"


def configs_folder() -> Path:
    """The folder of the yamls: inside the package when installed from a wheel, else the checkout's.

    Raises:
        UserError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"the configuration files are missing from {package}; install hpo-bench again")


def citation_file() -> Path:
    """What to cite, as a ``CITATION.cff``: it lies where the folder of the yamls does."""
    return configs_folder().parent / "CITATION.cff"


def read_yaml(file: Path) -> Any:
    """Read a yaml as Hydra does: ``1e-3`` is a number, interpolations stay as they are.

    Raises:
        UserError: it cannot be read, is not UTF-8 or is no yaml; the file is named.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(read_text(file)))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from None


def read_text(file: Path) -> str:
    """Read a file in UTF-8, without the byte-order mark that it may begin with.

    Raises:
        UserError: it cannot be read or is not UTF-8; the file is named.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{file} is not UTF-8 text (line {line} has the byte 0x{content[error.start]:02x}); "
            "save it as UTF-8"
        ) from None


def setting_names() -> list[str]:
    """The dotted keys of ``config.yaml``, in its order."""
    from hpo_bench.settings.identity import flat

    content = read_yaml(configs_folder() / "config.yaml")
    for part in ("defaults", "hydra"):  # Hydra's own
        content.pop(part, None)
    return [key for key, _ in flat(content)]
