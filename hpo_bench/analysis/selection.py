"""Which runs are compared: found in a store, alike in what they share."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from hpo_bench.errors import UserError, nearest
from hpo_bench.settings import identity
from hpo_bench.settings.identity import canonical, flat
from hpo_bench.store.runs import Run, complete_runs, runs_folder
from hpo_bench.system.quoting import override

NAMED = 2  # configurations left out of a comparison that get a line each
Runs = Sequence[Run]
T = TypeVar("T")
MACHINE = ("device", "cpu", "threads", "workers")  # of the environment: what run times depend on
SHARES = (0.25, 0.375, 0.5)  # validation parts of an experiment of their own


def find(
    results_dir: str | Path,
    *,
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> list[Run]:
    """Complete runs of a store, by method's order and run id.

    Args:
        results_dir: folder that holds ``runs/``.
        datasets, methods: ids to keep; all by default. A dataset's id stands for all data that go
            by it.
        where: dotted configuration keys and the values they must have, as ``{"update_interval":
            10}``.
        command: what would make the runs that are looked for, named where there are none.

    Raises:
        UserError: the store is empty or damaged, or nothing in it fits (nearest names are given).
    """
    own = f"hpo-bench run {override('results_dir', str(results_dir))}"
    make = f"make them with: {command or own}"
    runs = complete_runs(results_dir)
    if not runs:
        raise UserError(f"no complete runs in {runs_folder(results_dir)}; {make}")
    runs = _keep(runs, "dataset", datasets, make)
    runs = _keep(runs, "method", methods, make)
    for key, value in (where or {}).items():
        runs = _where(runs, key, value, results_dir)
    return sorted(
        runs, key=lambda run: (run.dataset, run.config["method"].get("order", 0), run.run_id)
    )


def _keep(
    runs: list[Run], kind: Literal["dataset", "method"], names: Iterable[str] | None, make: str
) -> list[Run]:
    if names is None:
        return runs
    wanted = list(names)
    kept = [
        run
        for run in runs
        if getattr(run, kind) in wanted or (kind == "dataset" and run.dataset_name in wanted)
    ]
    if not kept:
        close = nearest(",".join(wanted), {getattr(run, kind) for run in runs})
        known = close.replace("Allowed", "Stored").replace("allowed", "stored")
        raise UserError(f"{kind}={','.join(wanted)}: no complete runs; {known}; {make}")
    return kept


def each_data(runs: Runs, datasets: Iterable[str]) -> list[str]:
    """Dataset ids, a name that stands for several data replaced by the ids of each."""
    own: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        own[run.dataset_name][run.dataset] = None
    return [each for name in datasets for each in own.get(name, {name: None})]


def _where(runs: list[Run], key: str, value: Any, results_dir: str | Path) -> list[Run]:
    values = [(run, settings(run)) for run in runs]
    wanted = dict(flat(canonical({key: value}))).get(key, value)
    if not any(key in config for _, config in values):
        keys = {name for _, config in values for name in config}
        close = nearest(key, keys).partition(" Allowed: ")[0]
        hint = (
            close
            if close.startswith("did you mean")
            else "see the config of a run.json for what there is"
        )
        raise UserError(f"{key}: no run in {runs_folder(results_dir)} has this setting; {hint}")
    kept = [run for run, config in values if key in config and config[key] == wanted]
    if not kept:
        stored = sorted({str(config[key]) for _, config in values if key in config})
        raise UserError(f"{key}={value}: no complete run has it; stored: {', '.join(stored)}")
    return kept


def settings(run: Run) -> dict[str, Any]:
    """All settings of a run by dotted key, in the one spelling of their values."""
    return dict(flat(canonical(run.config)))


def differing_settings(runs: Runs) -> dict[str, dict[str, Any]]:
    """Settings in which runs of one method on one dataset differ, such as those of a grid.

    Returns:
        by dotted key, the value of each configuration (`configuration`); lists as tuples.
    """
    told_of = (*identity.DECISIVE, identity.Role.KEPT)
    values: dict[str, dict[str, Any]] = {}
    differing: dict[str, None] = {}
    for group in _groups(runs, lambda run: (run.dataset, run.method)).values():
        firsts = {configuration(run): run for run in group}
        own = {name: settings(run) for name, run in firsts.items()}
        for name, found in own.items():
            for key, value in found.items():
                values.setdefault(key, {})[name] = _hashable(value)
        for key in {key for found in own.values() for key in found}:
            if identity.role(key) in told_of:
                kinds = {repr(found.get(key)) for found in own.values()}
                differing |= {key: None} if len(kinds) > 1 else {}
    # what a method's component says again is told once: method.estimator.look_back is look_back
    repeated = {
        key
        for key in differing
        if key.startswith("method.") and key.rpartition(".")[2] in differing
    }
    return {key: values[key] for key in sorted(set(differing) - repeated)}


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value


def configuration(run: Run) -> str:
    """Hash of what decides the numbers of a run's repetitions apart from their seeds: equal for
    shards of one sweep.
    """
    return run.config_hash


@dataclass(frozen=True)
class Selection:
    """Runs that may stand side by side.

    Args:
        runs: one configuration per dataset and method.
        notes: a line for each configuration that was left out, and for each that was kept although
            its settings differ from the others': what is different about it.
    """

    runs: list[Run]
    notes: tuple[str, ...]


def comparable(runs: Runs) -> Selection:
    """Choose one configuration per dataset and method, so that the methods of a dataset are
    comparable.

    A dataset's reference is the combination of common settings (T, K, batch size, initial ranges,
    …) that most methods share, then one with the usual validation part rather than a larger one,
    then most repetitions, then most weight updates. Of each method the configuration with the
    fewest differences from it is kept, then the usual hyperparameter optimiser, the newest numbers
    (CHANGELOG), the most repetitions. A method that was trained on other rows than these (another
    validation part) is left out."""
    kept: list[Run] = []
    notes = _apart(runs)
    changed: list[str] = []
    for dataset in _groups(runs, lambda run: run.dataset).values():
        reference, hyper = _shared_by_most(dataset, _common), _shared_by_most(dataset, _hyper)
        for method in _groups(dataset, lambda run: run.method).values():
            shards = list(_groups(method, configuration).values())
            shards.sort(key=lambda group: _preference(group, reference, hyper))
            alike = [group for group in shards if _split(_common(group[0])) == _split(reference)]
            if not alike:  # trained on other rows than the other methods
                notes += [_of_another_split(group[0], reference) for group in shards[:1]]
                continue
            chosen = alike[0]
            others = [group for group in shards if group is not chosen]
            kept += chosen
            notes += [_left_out(group, chosen[0]) for group in others[:NAMED]]
            notes += _also_left_out(others[NAMED:])
            notes += _unlike(chosen[0], reference)
        changed += _other_code([run for run in kept if run.dataset == dataset[0].dataset])
    return Selection(kept, (*notes, *changed))


def _other_code(runs: Runs) -> list[str]:
    """A line for each component of one's own whose file changed between runs that stand side by
    side.
    """
    files: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        for target, digest in run.own_code.items():
            files[target].setdefault(digest, run)
    return [
        f"{runs[0].dataset}: the file of {target} changed between runs: "
        f"{', '.join(f'{run.run_id} ({digest[:8]})' for digest, run in found.items())}"
        for target, found in files.items()
        if len(found) > 1
    ]


def _apart(runs: Runs) -> list[str]:
    """A line for each name that stands for several data."""
    by_name = _groups([run for run in runs if run.variant], lambda run: run.dataset_name)
    notes = []
    for name, group in by_name.items():
        labels = dict.fromkeys(f"{run.dataset_label}, dataset {run.dataset}" for run in group)
        count = len({run.dataset for run in group})  # one file may lie under several names
        notes.append(
            f"{name}: runs on {count} different data, shown apart and never compared: {'; '.join(labels)}"
        )
    if any(run.variant.startswith(identity.UNKNOWN) for run in runs):
        notes.append(
            "data unknown: runs on one's own table that an earlier version stored do not say what was in it; they are "
            "compared with nothing else, compute them again to compare them"
        )
    return notes


def _split(common: Mapping[str, Any]) -> Any:
    """What tells the training and validation rows of a dataset apart."""
    return common.get("validation_share")


def _of_another_split(run: Run, reference: Mapping[str, Any]) -> str:
    return (
        f"{run.dataset}, {run.method}: left out, it is trained on other rows than the other methods: "
        f"validation_share={_split(_common(run))} (others: {_split(reference)})"
    )


def _groups(runs: Runs, key: Callable[[Run], T]) -> dict[T, list[Run]]:
    groups: dict[T, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def _preference(
    group: Runs, reference: Mapping[str, Any], hyper: Mapping[str, Any]
) -> tuple[int, int, int, int, str]:
    first = group[0]
    distances = (
        len(_differences(_common(first), reference)),
        len(_differences(_hyper(first), hyper)),
    )
    return (
        *distances,
        -int(first.code.get("numbers") or 0),
        -_repetitions(group),
        configuration(first),
    )


def _common(run: Run) -> dict[str, Any]:
    """The settings that methods share when they are compared, by dotted key."""
    return identity.shared(run.config)


def _hyper(run: Run) -> dict[str, Any]:
    return {key: value for key, value in settings(run).items() if key.startswith("hyper.")}


def _shared_by_most(runs: Runs, settings: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    groups = _groups(runs, lambda run: json.dumps(settings(run), sort_keys=True))

    def rank(key: str) -> tuple[int, bool, int, int, str]:
        group = groups[key]
        usual = any(run.config["validation_share"] not in SHARES for run in group)
        return (
            len({run.method for run in group}),
            usual,
            _repetitions(group),
            weight_updates(group[0]),
            key,
        )

    return settings(groups[max(groups, key=rank)][0])


def _repetitions(runs: Runs) -> int:
    return len({seed for run in runs for seed in run.seeds})


def weight_updates(run: Run) -> int:
    """T·K, the length of a run's trainings."""
    return int(run.config["update_interval"]) * int(run.config["hyperparameter_updates"])


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*a, *b} if a.get(key) != b.get(key))


def _left_out(group: Runs, chosen: Run) -> str:
    run = group[0]
    own, kept = settings(run), settings(chosen)
    told_of = (*identity.DECISIVE, identity.Role.KEPT)
    named = [key for key in _differences(own, kept) if identity.role(key) in told_of]
    told = ", ".join(f"{key}={own.get(key)} (kept: {kept.get(key)})" for key in named[:4])
    return (
        f"{run.dataset}, {run.method}: left out {_repetitions(group)} repetitions with "
        f"{told or f'other data or code (config_hash {run.config_hash}, kept: {chosen.config_hash})'}"
    )


def _also_left_out(groups: list[list[Run]]) -> list[str]:
    """One line for the configurations beyond `NAMED`: a grid would fill the page."""
    if not groups:
        return []
    first, repetitions = groups[0][0], sum(_repetitions(group) for group in groups)
    return [
        f"{first.dataset}, {first.method}: left out {repetitions} repetitions of {len(groups)} other configurations"
    ]


def _unlike(run: Run, reference: Mapping[str, Any]) -> list[str]:
    """A line where a kept configuration has other common settings."""
    own = _common(run)
    named = _differences(own, reference)
    told = ", ".join(f"{key}={own.get(key)} (others: {reference.get(key)})" for key in named[:4])
    return (
        [f"{run.dataset}, {run.method}: settings unlike the other methods': {told}"]
        if named
        else []
    )
