"""What a panel or a table says of trainings that were smaller than the paper's.

It follows from the stored configurations, which are held against the yamls of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from hpo_bench.analysis.paper import LARGER
from hpo_bench.analysis.selection import Runs, by_dataset, by_method, repetitions, weight_updates
from hpo_bench.settings.yamls import configs_folder, read_yaml
from hpo_bench.store.runs import Run

Values = Mapping[str, Any]


def of_each(runs: Runs) -> dict[str, str]:
    """The budgets (`less`) of the data sets whose runs were smaller than the paper's, by id."""
    said = {dataset: less(group) for dataset, group in by_dataset(runs).items()}
    return {dataset: text for dataset, text in said.items() if text}


def less(runs: Runs) -> str:
    """Say what some runs were trained on and how long, where that is less than in the paper.

    Args:
        runs: comparable ones of one data set.

    Returns:
        Such as ``20 % of the text, 2 × 64 units, 900 of 23910 weight updates, n = 8``; nothing for
        the paper's budget, with however many repetitions, and for data sets other than its larger
        ones.
    """
    first = runs[0]
    if first.dataset_name not in LARGER:
        return ""
    published = _published(first.dataset_name)
    parts = [
        _data(first.config["dataset"].get("source") or {}),
        _model(first.config.get("model") or {}, published["model"]),
        _batches(first, published),
        _length(runs, published),
    ]
    said = [part for part in parts if part]
    return ", ".join([*said, f"n = {_repetitions(runs)}"]) if said else ""


def _repetitions(runs: Runs) -> str:
    """How many repetitions the methods have: one number, or from the least to the most."""
    counts = sorted({repetitions(of_method) for of_method in by_method(runs).values()})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _data(source: Values) -> str:
    """Which part of the data was used."""
    words, of_words = source.get("first_words"), source.get("training_and_validation")
    if words and of_words and words < of_words:
        return f"{100 * words / of_words:.2g} % of the text"
    if source.get("subset") and source.get("small_rows") and of_words:
        return f"{source['small_rows'][0]} of {of_words} images"
    return ""


def _model(stored: Values, published: Values) -> str:
    """The sizes of the model, where they are not the paper's."""
    target = published["_target_"]
    if not stored:
        return ""  # the run does not say
    if stored.get("_target_") != target:
        return str(stored.get("_target_", "another model")).rpartition(".")[2]
    sizes = SIZES.get(target)
    if sizes is None or sizes(stored, published) == sizes(published, published):
        return ""
    return sizes(stored, published)


def _of_lstm(model: Values, published: Values) -> str:
    layers, hidden, embedding = (model.get(key) for key in ("layers", "hidden", "embedding"))
    vectors = "" if embedding == hidden else f" on word vectors of {embedding}"
    return f"{layers} × {hidden} units{vectors}"


def _of_resnet(model: Values, published: Values) -> str:
    blocks = "" if model.get("blocks") == published["blocks"] else f", blocks {model.get('blocks')}"
    return f"width {model.get('width')} of {published['width']}{blocks}"


def _of_mlp(model: Values, published: Values) -> str:
    return f"hidden layers {model.get('hidden')}"


SIZES: Mapping[str, Callable[[Values, Values], str]] = {
    "hpo_bench.models.lstm.LSTM": _of_lstm,
    "hpo_bench.models.resnet.ResNet": _of_resnet,
    "hpo_bench.models.mlp.MLP": _of_mlp,
}


def _batches(run: Run, published: Values) -> str:
    """The size of a batch, where it is not the paper's."""
    rows = run.config.get("batch_size", published["batch_size"])
    if rows == published["batch_size"]:
        return ""
    if rows is None:
        return "full batches"
    columns = (run.config["dataset"].get("source") or {}).get("columns")
    return f"batches of {rows} × {columns} words" if columns else f"batches of {rows}"


def _length(runs: Runs, published: Values) -> str:
    """How many weight updates there were, where they are not as many as in the paper."""
    lengths = sorted({weight_updates(run) for run in runs})
    updates = published["update_interval"] * published["hyperparameter_updates"]
    if lengths == [updates]:
        return ""
    return f"{' or '.join(map(str, lengths))} of {updates} weight updates"


@cache
def _published(dataset: str) -> dict[str, Any]:
    """The settings of one of the larger data sets as its yaml has them, and its model's."""
    content = dict(read_yaml(configs_folder() / "dataset" / f"{dataset}.yaml"))
    chosen = [entry for entry in content.get("defaults", []) if "override /model" in entry]
    model = chosen[0]["override /model"] if chosen else "mlp"
    of_model = read_yaml(configs_folder() / "model" / f"{model}.yaml")["model"]
    own = content.get("model") or {}
    return {**content, "model": {**of_model, **own}}
