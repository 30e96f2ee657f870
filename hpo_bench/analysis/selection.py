"""Which runs are compared: found in a store, alike in what they share."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from hpo_bench.analysis.paper import LARGER_VALIDATION_SHARES
from hpo_bench.errors import UserError, nearest
from hpo_bench.settings import identity
from hpo_bench.settings.identity import canonical, flat
from hpo_bench.settings.yamls import configs_folder, read_yaml
from hpo_bench.store.runs import Run, complete_runs, runs_folder
from hpo_bench.system.quoting import override

Runs = Sequence[Run]
Key = TypeVar("Key")
Values = Mapping[str, Any]  # of settings, by dotted key

WORTH_TELLING = (*identity.DECISIVE, identity.Role.KEPT)  # roles of settings that notes name
LINES_OF_LEFT_OUT = 2  # configurations of one method that get a line each when left out
SETTINGS_OF_A_LINE = 4  # differing settings that such a line names
MACHINE = ("device", "cpu", "threads", "workers")  # of the environment: what run times depend on


# --- what there is ---


def find(
    results_dir: str | Path,
    *,
    datasets: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    where: Values | None = None,
    command: str | None = None,
) -> list[Run]:
    """Complete runs of a store, by data set, the methods' order and run id.

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
    any_run = f"hpo-bench run {override('results_dir', str(results_dir))}"
    hint = f"make them with: {command or any_run}"
    runs = complete_runs(results_dir)
    if not runs:
        raise UserError(f"no complete runs in {runs_folder(results_dir)}; {hint}")
    if datasets is not None:
        runs = _of(runs, "dataset", list(datasets), hint)
    if methods is not None:
        runs = _of(runs, "method", list(methods), hint)
    for key, value in (where or {}).items():
        runs = _where(runs, key, value, results_dir)
    return sorted(runs, key=_place)


def _place(run: Run) -> tuple[str, float, str]:
    return run.dataset, run.config["method"].get("order", 0), run.run_id


def _of(
    runs: list[Run], kind: Literal["dataset", "method"], wanted: list[str], hint: str
) -> list[Run]:
    """The runs of these data sets or methods.

    Raises:
        UserError: there are none; names the nearest that are stored.
    """

    def fits(run: Run) -> bool:
        if kind == "dataset":
            return run.dataset in wanted or run.dataset_name in wanted
        return run.method in wanted

    fitting = [run for run in runs if fits(run)]
    if not fitting:
        names = ",".join(wanted)
        close = nearest(names, {getattr(run, kind) for run in runs})
        stored = close.replace("Allowed", "Stored").replace("allowed", "stored")
        raise UserError(f"{kind}={names}: no complete runs; {stored}; {hint}")
    return fitting


def each_data(runs: Runs, datasets: Iterable[str]) -> list[str]:
    """Dataset ids, a name that stands for several data replaced by the ids of each."""
    by_name: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        by_name[run.dataset_name][run.dataset] = None
    ids: list[str] = []
    for name in datasets:
        ids.extend(by_name.get(name, {name: None}))
    return ids


def _where(runs: list[Run], key: str, value: Any, results_dir: str | Path) -> list[Run]:
    """The runs that have this value of a setting.

    Raises:
        UserError: no run has the setting, or none has this value.
    """
    having = [(run, config) for run in runs if key in (config := settings(run))]
    if not having:
        keys = {name for run in runs for name in settings(run)}
        hint = nearest(key, keys).partition(" Allowed: ")[0]
        if not hint.startswith("did you mean"):
            hint = "see the config of a run.json for what there is"
        raise UserError(f"{key}: no run in {runs_folder(results_dir)} has this setting; {hint}")
    wanted = dict(flat(canonical({key: value}))).get(key, value)
    fitting = [run for run, config in having if config[key] == wanted]
    if not fitting:
        stored = sorted({str(config[key]) for _, config in having})
        raise UserError(f"{key}={value}: no complete run has it; stored: {', '.join(stored)}")
    return fitting


# --- what a run says about itself ---


def settings(run: Run) -> dict[str, Any]:
    """All settings of a run by dotted key, in the one spelling of their values."""
    return dict(flat(canonical(run.config)))


def differing_settings(runs: Runs) -> dict[str, dict[str, Any]]:
    """Settings in which runs of one method on one dataset differ, such as those of a grid.

    Returns:
        by dotted key, the value of each configuration (`configuration`); lists as tuples.
    """
    values: dict[str, dict[str, Any]] = {}
    differing: set[str] = set()
    for group in grouped(runs, lambda run: (run.dataset, run.method)).values():
        by_configuration = {configuration(run): settings(run) for run in group}
        for name, of_one in by_configuration.items():
            for key, value in of_one.items():
                values.setdefault(key, {})[name] = _hashable(value)
        differing |= _keys_that_differ(list(by_configuration.values()))

    # What a method's component says again is told once: method.estimator.look_back is look_back.
    listed: dict[str, dict[str, Any]] = {}
    for key in sorted(differing):
        if not (key.startswith("method.") and key.rpartition(".")[2] in differing):
            listed[key] = values[key]
    return listed


def _keys_that_differ(configurations: Sequence[Values]) -> set[str]:
    """Settings worth telling that not all configurations have alike."""
    keys = set().union(*configurations)
    differing = set()
    for key in keys:
        spellings = {repr(config.get(key)) for config in configurations}
        if len(spellings) > 1 and identity.role(key) in WORTH_TELLING:
            differing.add(key)
    return differing


def _hashable(value: Any) -> Any:
    """A setting as a value that a dictionary may have as a key."""
    return tuple(_hashable(item) for item in value) if isinstance(value, list) else value


def configuration(run: Run) -> str:
    """Hash of what decides the numbers of a run's repetitions apart from their seeds.

    It is equal for the shards of one sweep.
    """
    return run.config_hash


def weight_updates(run: Run) -> int:
    """T·K, the length of a run's trainings."""
    return int(run.config["update_interval"]) * int(run.config["hyperparameter_updates"])


def repetitions(runs: Runs) -> int:
    """How many different seeds runs have, whatever shards they came in."""
    return len({seed for run in runs for seed in run.seeds})


def grouped(runs: Runs, key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    """Runs by a key, in the order of the first run of each."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def by_dataset(runs: Runs) -> dict[str, list[Run]]:
    """Runs by data set, in the order of the first run of each."""
    return grouped(runs, lambda run: run.dataset)


def by_method(runs: Runs) -> dict[str, list[Run]]:
    """Runs by method, in the order of the first run of each."""
    return grouped(runs, lambda run: run.method)


def _common(run: Run) -> dict[str, Any]:
    """The settings that methods share when they are compared, by dotted key."""
    return identity.shared(run.config)


def _hyper(run: Run) -> dict[str, Any]:
    """The settings of the hyperparameter optimiser, by dotted key."""
    return {key: value for key, value in settings(run).items() if key.startswith("hyper.")}


# --- what may stand side by side ---


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


def comparable(runs: Runs, deciding: Collection[str] = ()) -> Selection:
    """Choose one configuration per dataset and method, so that methods are comparable.

    A dataset's reference is the combination of common settings (T, K, batch size, initial ranges,
    …) that most methods share, then one with the usual validation part rather than a larger one,
    then most repetitions, then most weight updates. Of each method the configuration with the
    fewest differences from it is kept, then the usual hyperparameter optimiser, what is nearest to
    the method's own yaml (of a grid over one of its settings the usual value), the newest numbers
    (CHANGELOG), the most repetitions, the most recorded steps. A method that was trained on other
    rows than these (another validation part) is left out.

    Args:
        deciding: methods whose settings are the reference, where a dataset has runs of them; then
            others are left out that were trained for another number of weight updates. All methods
            unless given.
    """
    kept_runs: list[Run] = []
    notes = _told_apart(runs)
    changes: list[str] = []
    for of_dataset in by_dataset(runs).values():
        # The reference is what most methods have in common, not what most runs have: a grid over
        # one method's settings is many runs and must not decide what all others are held to.
        of_those = [run for run in of_dataset if run.method in deciding]
        reference = _shared_by_most(of_those or of_dataset, _common)
        length = reference["update_interval"] * reference["hyperparameter_updates"]

        # The hyperparameter optimiser is each method's own, so it never makes two methods
        # incomparable. It only decides between configurations that are equally near the reference.
        hyper = _shared_by_most(of_dataset, _hyper)

        of_this_dataset: list[Run] = []
        for of_method in by_method(of_dataset).values():
            # Shards of one sweep have one configuration: they are kept or left out together.
            candidates = list(grouped(of_method, configuration).values())
            if len(candidates) > 1:
                candidates.sort(key=lambda shards: _preference(shards, reference, hyper))

            # Other settings are told of in a note and shown nevertheless. Other rows are not: a
            # test loss after training on fewer rows answers another question.
            on_the_same_rows = [
                shards for shards in candidates if _split(_common(shards[0])) == _split(reference)
            ]
            if not on_the_same_rows:
                notes.append(_on_other_rows(candidates[0][0], reference))
                continue
            chosen = on_the_same_rows[0]
            is_beside = bool(of_those) and chosen[0].method not in deciding
            if is_beside and weight_updates(chosen[0]) != length:
                notes.append(_of_another_length(chosen, length))
                continue
            of_this_dataset += chosen

            others = [shards for shards in candidates if shards is not chosen]
            notes += [_left_out(shards, chosen[0]) for shards in others[:LINES_OF_LEFT_OUT]]
            notes += _also_left_out(others[LINES_OF_LEFT_OUT:])
            notes += _unlike(chosen[0], reference)

        # The code of one's own components is in no setting, so that alike settings can hide that
        # a file changed between two runs.
        changes += _changed_code(of_this_dataset)
        kept_runs += of_this_dataset
    return Selection(kept_runs, (*notes, *changes))


def _shared_by_most(runs: Runs, settings: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """The settings, or part of them, that most methods have; see `comparable` for ties."""
    groups = grouped(runs, lambda run: json.dumps(settings(run), sort_keys=True))

    def rank(key: str) -> tuple[int, bool, int, int, str]:
        group = groups[key]
        usual = any(run.config["validation_share"] not in LARGER_VALIDATION_SHARES for run in group)
        return (len(by_method(group)), usual, repetitions(group), weight_updates(group[0]), key)

    return settings(groups[max(groups, key=rank)][0])


def _preference(
    shards: Runs, reference: Values, hyper: Values
) -> tuple[int, int, int, int, int, int, str]:
    """What orders the configurations of a method: the first is the one to keep."""
    first = shards[0]
    return (
        len(_differences(_common(first), reference)),
        len(_differences(_hyper(first), hyper)),
        _unlike_its_yaml(first),
        -int(first.code.get("numbers") or 0),
        -repetitions(shards),
        int(first.config["record_every"]),
        configuration(first),  # so that the choice never depends on the order of the store
    )


def of_usual_length(runs: Runs) -> tuple[list[Run], tuple[str, ...]]:
    """Those of comparable runs that were trained as long as most on their dataset, and notes."""
    kept_runs: list[Run] = []
    notes: list[str] = []
    for of_dataset in by_dataset(runs).values():
        lengths = Counter(weight_updates(run) for run in of_dataset)
        usual = max(lengths, key=lambda length: (lengths[length], length))
        for run in of_dataset:
            if weight_updates(run) == usual:
                kept_runs.append(run)
            else:
                notes.append(_of_another_length([run], usual))
    return kept_runs, tuple(notes)


def _of_another_length(shards: Runs, usual: int) -> str:
    run = shards[0]
    return (
        f"{run.dataset}, {run.method}: left out {repetitions(shards)} repetitions of "
        f"{weight_updates(run)} updates (kept: {usual})"
    )


def _unlike_its_yaml(run: Run) -> int:
    """How many settings of its method a run has otherwise than the yaml of this package."""
    usual, own = _method_yaml(run.method), settings(run)
    return sum(own.get(key) != value for key, value in usual.items())


@cache
def _method_yaml(name: str) -> dict[str, Any]:
    """What the yaml of a method says of the method, by dotted key, but for interpolations."""
    file = configs_folder() / "method" / f"{name}.yaml"
    if not file.is_file():
        return {}
    said = dict(flat(canonical({"method": read_yaml(file).get("method", {})})))
    decisive = {
        key: value for key, value in said.items() if identity.role(key) is identity.Role.OWN
    }
    return {key: value for key, value in decisive.items() if "${" not in str(value)}


def over_setting(runs: Runs, key: str) -> tuple[dict[Any, list[Run]], tuple[str, ...]]:
    """The cells of a grid over one setting, which are variants of one method to stand side by side.

    On each dataset all are of the length that most values of the setting have; of each value runs
    are chosen as by `comparable`.

    Args:
        runs: of one method, or of several that have the setting.
        key: dotted.

    Returns:
        runs by the setting's value, in the order of the values, and what was left out.
    """
    cells: dict[Any, list[Run]] = {}
    notes: list[str] = []
    for dataset, of_dataset in by_dataset(runs).items():
        values: dict[int, set[Any]] = defaultdict(set)
        for run in of_dataset:
            values[weight_updates(run)].add(settings(run).get(key))
        usual = max(values, key=lambda length: (len(values[length]), length))
        alike = [run for run in of_dataset if weight_updates(run) == usual]
        if len(alike) < len(of_dataset):
            count = len(of_dataset) - len(alike)
            notes.append(f"{dataset}: left out {count} runs of other lengths (kept: {usual})")
        for value, group in grouped(alike, lambda run: settings(run).get(key)).items():
            chosen = comparable(group)
            cells.setdefault(value, []).extend(chosen.runs)
            notes += chosen.notes
    return {value: cells[value] for value in sorted(cells)}, tuple(notes)


def _differences(a: Values, b: Values) -> list[str]:
    """Keys whose values differ, sorted."""
    return sorted(key for key in {*a, *b} if a.get(key) != b.get(key))


def _split(common: Values) -> Any:
    """What tells the training and validation rows of a dataset apart."""
    return common.get("validation_share")


# --- what is said about it ---


def _told_apart(runs: Runs) -> list[str]:
    """A line for each name that stands for several data."""
    with_variant = [run for run in runs if run.variant]
    notes = []
    for name, group in grouped(with_variant, lambda run: run.dataset_name).items():
        labels = dict.fromkeys(f"{run.dataset_label}, dataset {run.dataset}" for run in group)
        count = len(by_dataset(group))  # one file may lie under several names
        if count == 1:
            continue  # those of one panel or one --dataset: nothing else is there to mix them with
        notes.append(
            f"{name}: runs on {count} different data, shown apart and never compared: "
            f"{'; '.join(labels)}"
        )
    if any(run.variant.startswith(identity.UNKNOWN) for run in runs):
        notes.append(
            "data unknown: runs on one's own table that an earlier version stored do not say what "
            "was in it; they are compared with nothing else, compute them again to compare them"
        )
    return notes


def _on_other_rows(run: Run, reference: Values) -> str:
    return (
        f"{run.dataset}, {run.method}: left out, it is trained on other rows than the other "
        f"methods: validation_share={_split(_common(run))} (others: {_split(reference)})"
    )


def _left_out(shards: Runs, chosen: Run) -> str:
    """What the configuration that was kept has otherwise than one that was not."""
    run = shards[0]
    mine, chosen_settings = settings(run), settings(chosen)
    keys = [
        key for key in _differences(mine, chosen_settings) if identity.role(key) in WORTH_TELLING
    ]
    what = _side_by_side(keys, mine, chosen_settings, "kept")
    if not what:
        hashes = f"config_hash {run.config_hash}, kept: {chosen.config_hash}"
        what = f"other data or code ({hashes})"
    return f"{run.dataset}, {run.method}: left out {repetitions(shards)} repetitions with {what}"


def _also_left_out(configurations: list[list[Run]]) -> list[str]:
    """One line for all configurations beyond `LINES_OF_LEFT_OUT`: a grid would fill the page."""
    if not configurations:
        return []
    first = configurations[0][0]
    total = sum(repetitions(shards) for shards in configurations)
    return [
        f"{first.dataset}, {first.method}: left out {total} repetitions of "
        f"{len(configurations)} other configurations"
    ]


def _unlike(run: Run, reference: Values) -> list[str]:
    """A line where a configuration that was kept has other common settings."""
    common = _common(run)
    keys = _differences(common, reference)
    if not keys:
        return []
    what = _side_by_side(keys, common, reference, "others")
    return [f"{run.dataset}, {run.method}: settings unlike the other methods': {what}"]


def _side_by_side(keys: Sequence[str], mine: Values, others: Values, whose: str) -> str:
    """``KEY=VALUE (WHOSE: VALUE)`` of the first few settings."""
    return ", ".join(
        f"{key}={mine.get(key)} ({whose}: {others.get(key)})" for key in keys[:SETTINGS_OF_A_LINE]
    )


def _changed_code(runs: Runs) -> list[str]:
    """A line for each component of one's own whose file changed between runs of a data set."""
    first_by_digest: dict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        for component, digest in run.own_code.items():
            first_by_digest[component].setdefault(digest, run)
    notes = []
    for component, runs_by_digest in first_by_digest.items():
        if len(runs_by_digest) > 1:
            versions = [f"{run.run_id} ({digest[:8]})" for digest, run in runs_by_digest.items()]
            notes.append(
                f"{runs[0].dataset}: the file of {component} changed between runs: "
                f"{', '.join(versions)}"
            )
    return notes
