"""Which run it is: its id, and digests of the data that it is trained on."""

from __future__ import annotations

from typing import Any

from hpo_bench.core.table import Table
from hpo_bench.datasets.preparation import content_of
from hpo_bench.running import starts as start
from hpo_bench.settings import identity
from hpo_bench.settings.run import Settings


def identify(settings: Settings, table: Table) -> tuple[str, str]:
    """Run id, readable and ending in a hash of everything that decides the numbers, and the hash
    without the seeds.
    """
    config_hash = _config_hash(settings, table, identity.NUMBERS)
    full = _digest(
        {"config": config_hash, "seed": settings.seed, "repetitions": settings.repetitions}
    )
    return (
        f"{settings.dataset}-{settings.method.name}-s{settings.seed}-n{settings.repetitions}-{full}",
        config_hash,
    )


def rounded_otherwise(settings: Settings, table: Table) -> tuple[str, ...]:
    """Hashes that `identify` gave the same configuration where results differ from today's in
    rounding alone.
    """
    return tuple(_config_hash(settings, table, numbers) for numbers in identity.ROUNDED)


def _config_hash(settings: Settings, table: Table, numbers: int) -> str:
    decisive = identity.decisive(settings.config)
    decisive["dataset"] = {"name": settings.dataset, "fingerprint": _fingerprint(settings, table)}
    decisive["numbers"] = numbers
    if settings.start.file is not None:
        # which of its rows a seed starts from depends on the run's first seed
        decisive["init"] = {"sha256": start.digest(settings.start.file), "first": settings.seed}
    return _digest(decisive)


def described_data(settings: Settings, table: Table) -> dict[str, Any]:
    """What ``run.json`` says about what was trained on: digests of it, and its size."""
    return {
        "fingerprint": _fingerprint(settings, table),
        "content": table.content or _content(settings, table),
        "rows": {"training": table.training, "validation": table.validation, "test": table.test},
        "inputs": list(table.inputs.shape[1:]),
        "outputs": table.outputs,
        "target": settings.config["dataset"].get("target"),
    }


def _content(settings: Settings, table: Table) -> str | None:
    """A digest of the loaded rows, where neither the configuration nor the loader identifies
    them.
    """
    if identity.is_public(settings.config["dataset"].get("source") or {}):
        return None
    return content_of(table.inputs, table.targets, table.test, str(table.target_scale))


def _fingerprint(settings: Settings, table: Table) -> str:
    """The table's fingerprint; of a loader that is not of this package, with a digest of what it
    loaded.
    """
    source = settings.config["dataset"].get("source") or {}
    if str(source.get("_target_", "hpo_bench.")).startswith("hpo_bench."):
        return table.fingerprint
    return identity.digest([table.fingerprint, _content(settings, table)])


def _digest(content: Any) -> str:
    return identity.digest(content)[:12]
