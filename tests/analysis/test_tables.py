"""Tables of hand-made stores: their numbers, what they leave out, what they miss, and their three
formats.
"""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from hpo_bench.analysis import render, tables
from hpo_bench.analysis.statistics import best_of_groups, bootstrap, distributions, interval, pairs
from hpo_bench.errors import UserError
from tests.make_store import make_run

RNG = np.random.default_rng(1)
VALUES = RNG.lognormal(size=12)


def number(table: render.RenderedTable, **conditions: str) -> pd.Series:
    data = table.data
    for column, value in conditions.items():
        data = data[data[column] == value]
    assert len(data) == 1
    return data.iloc[0]


@pytest.fixture
def results(tmp_path):
    """Random with two failures and one spike, ours with none, on Energy; ours alone on Kin8nm."""
    failed = VALUES.copy()
    failed[[2, 5]] = np.nan
    make_run(tmp_path, "random", "uci_energy", 10 * failed)
    make_run(tmp_path, "ours_wd_lr_m", "uci_energy", VALUES)
    make_run(tmp_path, "ours_wd_lr_m", "uci_kin8nm", VALUES / 1000)
    return tmp_path


# --- mean, median, best ---


def test_default_statistics_count_failures_in_the_median_but_not_in_the_mean(results):
    table = tables.build("uci_main", results)
    failed = np.delete(10 * VALUES, [2, 5])
    mean = number(table, dataset="uci_energy", method="random", statistic="mean")
    median = number(table, dataset="uci_energy", method="random", statistic="median")
    best = number(table, dataset="uci_energy", method="random", statistic="best")
    expected = bootstrap.bootstrap(failed, "mean")
    assert (mean["estimate"], mean["standard_deviation"]) == (
        expected.estimate,
        expected.standard_deviation,
    )
    expected = bootstrap.bootstrap(np.append(failed, [np.inf, np.inf]), "median")
    assert median["low"] <= median["estimate"] <= median["high"]
    assert median["estimate"] == pytest.approx(expected.estimate, rel=0.2)
    assert best["estimate"] == failed.min()
    assert {(row["n_ok"], row["n"]) for row in (mean, median, best)} == {(10, 12)}


def test_paper_statistics_drop_failures_and_look_at_whole_trajectories(tmp_path):
    curves = np.array([[9.0, 0.5, 2.0], [9.0, 5.0, 4.0], [0.1, np.nan, np.nan]])
    make_run(tmp_path, "random", "uci_energy", curves)
    default, paper = (
        tables.build("uci_main", tmp_path),
        tables.build("uci_main", tmp_path, mode="paper"),
    )
    expected = bootstrap.bootstrap([2.0, 4.0], "median")
    median = number(paper, method="random", statistic="median")
    assert (median["estimate"], median["n_ok"], median["n"]) == (expected.estimate, 2, 3)
    assert number(paper, method="random", statistic="best")["estimate"] == 0.5
    assert number(default, method="random", statistic="best")["estimate"] == 2.0
    assert "paper" in paper.label
    assert "dropped" in paper.label


def test_paper_statistics_drop_high_losses_on_fashion_mnist_alone(tmp_path):
    for dataset in ("fashion_mnist", "uci_energy"):
        make_run(tmp_path, "random", dataset, [0.5, 0.4, 0.9], test_loss=[1.0, 999.0, 1000.0])
    data = tables.build("summary", tmp_path, mode="paper").data
    counts = data[(data["statistic"] == "mean") & (data["column"] == "test_metric")].set_index(
        "dataset"
    )["n_ok"]
    assert counts.to_dict() == {"fashion_mnist": 2, "uci_energy": 3}


def test_classification_shows_cross_entropy_and_error(tmp_path):
    make_run(tmp_path, "random", "fashion_mnist", [0.2, 0.3], test_loss=[0.7, 0.9])
    table = tables.build("fashion_mnist", tmp_path)
    assert number(table, column="test_loss", statistic="best")["estimate"] == 0.7
    assert number(table, column="test_metric", statistic="best")["estimate"] == 0.2
    assert list(table.data["measure"].unique()) == ["Test cross-entropy", "Test error"]


def test_the_metrics_scale_multiplies_value_and_error(results):
    table = tables.build("uci_main", results)
    energy, kin8nm = (
        number(table, dataset=dataset, method="ours_wd_lr_m", statistic="mean")
        for dataset in ("uci_energy", "uci_kin8nm")
    )
    assert_allclose(kin8nm["estimate"], energy["estimate"])
    assert_allclose(kin8nm["standard_deviation"], energy["standard_deviation"])
    assert any("× 1000" in str(key) for key in table.body.columns)


def test_bold_cells_are_those_within_the_error_of_the_best(results):
    table = tables.build("uci_main", results, datasets=["uci_energy"])
    medians = table.bold[("UCI Energy: Test MSE", "Median")]
    assert medians.to_dict() == {"Random": False, "Ours (WD+LR+M)": True}
    assert table.body.index.to_list() == ["Random", "Ours (WD+LR+M)"]
    assert not table.bold.xs("n_ok/n", axis=1, level=1).to_numpy().any()


def test_random_3_batched_is_made_of_random_validation(tmp_path):
    validation = RNG.permutation(12.0 + np.arange(12))
    make_run(tmp_path, "random_validation", "uci_energy", VALUES, validation_loss=validation)
    table = tables.build("uci_main", tmp_path)
    assert table.body.index.to_list() == ["Random (3-batched)"]
    mean = number(table, method="random_3_batched", statistic="mean")
    expectation = best_of_groups.best_of_groups_weights(validation) @ VALUES
    assert mean["low"] < expectation < mean["high"]
    median = number(table, method="random_3_batched", statistic="median")
    expected = best_of_groups.best_of_groups_bootstrap(validation, VALUES, 3, "median")
    assert (median["estimate"], median["n"]) == (expected.estimate, 12)
    possible = np.argsort(validation)[:10]  # the two worst never win a group
    assert (
        number(table, method="random_3_batched", statistic="best")["estimate"]
        == VALUES[possible].min()
    )
    paper = tables.build("uci_main", tmp_path, mode="paper", seed=3)
    winners = best_of_groups.best_of_groups_random(validation, VALUES, seed=3, paper=True)
    found = number(paper, method="random_3_batched", statistic="mean")
    assert found["estimate"] == bootstrap.bootstrap(winners, "mean", seed=3).estimate
    assert found["n"] == 4


def test_a_diverged_run_takes_its_group_with_it_only_in_the_papers_statistics(tmp_path):
    make_run(tmp_path, "random_validation", "uci_energy", [1.0, 2.0, np.nan])
    default, paper = (
        tables.build("uci_main", tmp_path),
        tables.build("uci_main", tmp_path, mode="paper"),
    )
    assert number(default, statistic="median")["n_ok"] == 2
    assert number(default, statistic="best")["estimate"] == 1.0
    assert (number(paper, statistic="median")["n_ok"], number(paper, statistic="median")["n"]) == (
        0,
        1,
    )
    assert np.isnan(number(paper, statistic="median")["estimate"])
    assert set(paper.body.iloc[0]) == {"–", "0/1"}


@pytest.mark.parametrize("mode", interval.MODES)
@pytest.mark.parametrize("values", [[np.nan] * 4, [1.0], [np.nan]])
def test_failures_alone_and_single_runs_have_a_table_in_every_format(tmp_path, mode, values):
    for method in ("random", "random_validation"):
        make_run(tmp_path, method, "uci_energy", values)
    for name in ("uci_main", "pairs", "divergence", "runtime"):
        table = tables.build(name, tmp_path, mode=mode)
        for write in render.FORMATS.values():
            assert write(table)


# --- what is missing or left out ---


def test_missing_runs_come_with_the_command_that_makes_them(results):
    lines = tables.build("uci_main", results).missing
    assert len(lines) == 3
    energy = next(line for line in lines if "on uci_energy;" in line)
    assert "no runs of random_lr_schedule, lorraine, baydin" in energy
    assert "hpo-bench run -m method=random_lr_schedule,lorraine,baydin" in energy
    assert energy.endswith(f"dataset=uci_energy repetitions=200 results_dir={results}")
    assert any("on uci_power;" in line for line in lines)
    assert tables.build("summary", results).missing == ()


def test_a_dataset_without_runs_names_the_command(results):
    with pytest.raises(
        UserError, match=r"dataset=cifar10: no complete runs.*hpo-bench run -m .*repetitions=50"
    ):
        tables.build("cifar10", results)


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(UserError, match="no table uci_man; did you mean uci_main"):
        tables.build("uci_man", "nowhere")


def test_other_configurations_are_left_out_and_named(results):
    make_run(results, "random", "uci_energy", [0.001] * 20, update_interval=3)
    table = tables.build("uci_main", results)
    assert number(table, dataset="uci_energy", method="random", statistic="best")["n"] == 12
    assert "update_interval=3" in table.notes[0]
    chosen = tables.build("uci_main", results, where={"update_interval": 3})
    assert number(chosen, statistic="best")["estimate"] == 0.001


def test_a_tables_own_methods_say_how_long_all_were_trained(tmp_path):
    short, long = np.full((3, 3), 2.0), np.full((3, 9), 1.0)
    for method in ("random", "ours_wd_lr_m"):
        make_run(tmp_path, method, "fashion_mnist", long)
        make_run(tmp_path, method, "fashion_mnist", short)
    for method in ("prodigy", "dog", "momo"):  # shorter, and more of them
        make_run(tmp_path, method, "fashion_mnist", short)
    table = tables.build("fashion_mnist", tmp_path)
    assert set(table.data["method"]) == {"random", "ours_wd_lr_m"}
    assert set(table.data.query("statistic == 'best'")["estimate"]) == {1.0}
    assert sum("dog: left out 3 repetitions of" in note for note in table.notes) == 1
    everything = tables.build("summary", tmp_path).data
    assert set(everything.query("statistic == 'best'")["estimate"]) == {2.0}


# --- pairs, divergence, run time ---


def test_pairs_compare_shared_seeds_and_adjust_within_a_dataset(tmp_path):
    noise = RNG.normal(size=(3, 20))
    for method, values, first in (
        ("random", 9 + noise[0], 0),
        ("baydin", 5 + noise[1], 0),
        ("lorraine", 9 + noise[2], 5),
    ):
        make_run(tmp_path, method, "uci_energy", values, first_seed=first)
    table = tables.build("pairs", tmp_path)
    assert set(zip(table.data["method_a"], table.data["method_b"], strict=True)) == {
        ("random", "lorraine"),
        ("random", "baydin"),
        ("lorraine", "baydin"),
    }
    row = number(table, method_a="random", method_b="lorraine")
    expected = pairs.paired_comparison((9 + noise[0])[5:], (9 + noise[2])[:15])
    assert (row["n"], row["p_wilcoxon"]) == (15, expected.p_value)
    assert row["probability_estimate"] == expected.probability.estimate
    assert_allclose(table.data["p_holm"], pairs.holm(table.data["p_wilcoxon"]))
    bold = table.bold["p (Holm)"].to_numpy()
    assert bold.tolist() == (table.data["p_holm"] < 0.05).to_list()
    assert bold.sum() == 2


def test_pairs_count_failures_by_default_and_drop_them_in_the_papers_statistics(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0, np.nan, 1.0])
    make_run(tmp_path, "baydin", "uci_energy", [2.0, 2.0, 2.0])
    default, paper = (
        tables.build("pairs", tmp_path, mode=mode).data.iloc[0] for mode in interval.MODES
    )
    assert (default["n"], default["probability_estimate"]) == (3, pytest.approx(2 / 3))
    assert (paper["n"], paper["probability_estimate"]) == (2, 1.0)


def test_pairs_need_two_methods(tmp_path):
    make_run(tmp_path, "random", "uci_energy", [1.0])
    with pytest.raises(UserError, match="two methods"):
        tables.build("pairs", tmp_path)


def test_divergence_counts_with_wilson_intervals(tmp_path):
    values = np.ones((8, 5))
    values[1, 2:] = values[4, 4:] = np.nan  # diverged at steps 20 and 40
    make_run(tmp_path, "random", "uci_energy", values)
    table = tables.build("divergence", tmp_path)
    row, expected = table.data.iloc[0], distributions.wilson(2, 8)
    assert (row["diverged"], row["n"], row["estimate"], row["median_diverged_at"]) == (
        2,
        8,
        0.25,
        30,
    )
    assert (row["low"], row["high"]) == (expected.low, expected.high)
    assert table.body.loc["Random", ("UCI Energy", "diverged")] == "2/8"
    assert "Wilson" in table.label


def test_run_time_is_compared_under_equal_conditions_alone(tmp_path):
    for first, factor in ((0, 1.0), (4, 1.1), (8, 0.9)):  # three blocks each
        make_run(
            tmp_path, "random", "uci_energy", [1.0] * 4, first_seed=first, seconds=2.0 * factor
        )
        make_run(
            tmp_path,
            "ours_wd_lr_m",
            "uci_energy",
            [1.0] * 4,
            first_seed=first,
            seconds=5.0 * factor,
        )
        make_run(tmp_path, "baydin", "uci_energy", [1.0] * 4, first_seed=first, rows_in_block=2)
    make_run(
        tmp_path,
        "random",
        "uci_energy",
        [1.0],
        first_seed=12,
        seconds=90.0,
        environment={"threads": 8},
    )
    table = tables.build("runtime", tmp_path)
    ours = number(table, method="ours_wd_lr_m")
    assert (ours["times_plain_estimate"], ours["blocks"], ours["seconds"]) == (
        pytest.approx(2.5),
        3,
        5.0,
    )
    assert ours["milliseconds_per_update"] == pytest.approx(1000 * 5.0 / 40)
    assert 2 < ours["times_plain_low"] <= 2.5 <= ours["times_plain_high"] < 3.1
    assert np.isnan(number(table, method="baydin")["times_plain_estimate"])
    shown = table.body["× Random"].droplevel(0)
    assert (shown["Random"], shown["Baydin"]) == ("1", "–")


# --- formats ---


def test_csv_is_the_data_unrounded(results):
    table = tables.build("uci_main", results)
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(render.csv(table))), table.data, check_dtype=False
    )


def test_markdown_has_a_cell_for_every_column_and_marks_bold(results):
    table = tables.build("uci_main", results)
    text = render.markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(table.body)
    assert len({line.count("|") for line in rows}) == 1
    assert text.count("**") == 2 * int(table.bold.to_numpy().sum())
    assert f"- {table.label}" in text


@pytest.mark.parametrize("name", ["uci_main", "pairs", "divergence", "runtime"])
def test_latex_is_ascii_with_as_many_cells_in_every_row(results, name):
    text = render.latex(tables.build(name, results))
    assert text.isascii()
    lines = text.splitlines()
    body = lines[lines.index("\\midrule") + 1 : lines.index("\\bottomrule")]
    columns = (
        next(line for line in lines if line.startswith("\\begin{tabular}"))
        .rpartition("{")[2]
        .rstrip("}")
    )
    assert {line.count(" & ") + 1 for line in body} == {len(columns)}
    assert text.count("{") == text.count("}")


def test_latex_escapes_what_labels_may_hold():
    assert render.escape("a_b & 5 % {x} #1 \\ ~^") == (
        r"a\_b \& 5 \% \{x\} \#1 \textbackslash{} \textasciitilde{}\textasciicircum{}"
    )
    assert render.escape("(1.2 ± 0.3)e-5") == r"(1.2 $\pm$ 0.3)$\cdot 10^{-5}$"
    assert render.escape("Baseline1e5x −∞") == r"Baseline1e5x $-$$\infty$"


def latex_with_booktabs() -> bool:
    """Whether there is a LaTeX that finds the one package which tables need."""
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode == 0


@pytest.mark.skipif(
    not latex_with_booktabs(), reason="needs pdflatex with booktabs.sty (texlive-latex-recommended)"
)
@pytest.mark.parametrize("name", ["uci_main", "pairs"])
def test_latex_compiles_with_booktabs_alone(results, tmp_path, name):
    make_run(results, "odd_&_%", "uci_energy", [1e-7, 1e9, np.nan])
    document = (
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}\n"
    )
    (tmp_path / "table.tex").write_text(document % render.latex(tables.build(name, results)))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("name", ["summary", "pairs", "divergence"])
def test_what_goes_by_one_label_has_a_place_of_its_own(tmp_path, name):
    config = {"dataset.label": "House"}
    for dataset, level in (("north", 1.0), ("south", 50.0)):
        make_run(tmp_path, "random", dataset, level * VALUES, config=config)
        make_run(
            tmp_path,
            "baydin",
            dataset,
            2 * level * VALUES,
            config={**config, "method.label": "Random"},
        )
    make_run(tmp_path, "lorraine", "uci_energy", VALUES)
    text = render.markdown(tables.build(name, tmp_path))
    assert {
        label
        for label in ("House (north)", "House (south)", "Random (random)", "Random (baydin)")
        if label in text
    } == {"House (north)", "House (south)", "Random (random)", "Random (baydin)"}
    assert "UCI Energy (" not in text
    assert "Lorraine (" not in text


def test_labels_of_earlier_versions_do_not_tear_a_table(tmp_path):
    make_run(
        tmp_path,
        "random",
        "north",
        VALUES,
        config={"dataset.label": "two\n\nlines", "method.label": "\x1b[1mR"},
    )
    table = tables.build("summary", tmp_path)
    assert "two\\x0a\\x0alines" in render.markdown(table)
    assert "\x1b" not in render.latex(table) + render.markdown(table) + render.csv(table)


# --- what one would take today, horizons, where hyperparameters end ---


def rivals_store(results):
    """Prodigy on both versions of the rows, and a tuned method, which has one."""
    for rows, values in (("train_and_validation", [1.0, 5.0, 3.0]), ("train", [4.0, 5.0, np.nan])):
        own = {"method.data_for_weights": "train_and_validation", "data_for_weights": rows}
        make_run(results, "prodigy", "uci_energy", values, config=own, suffix=rows)
    make_run(results, "ours_adamw", "uci_energy", [2.0, 4.0, 3.0, 9.0])
    make_run(results, "ours_wd_lr", "uci_energy", np.full((3, 9), 0.1))  # trained for longer


def test_rivals_are_compared_on_the_rows_of_each_method_and_on_training_rows_alone(tmp_path):
    rivals_store(tmp_path)
    table = tables.build("rivals", tmp_path)
    data = table.data.set_index(["version", "method"])
    assert dict(data["estimate"].round(6).notna()) == dict.fromkeys(data.index, True)
    assert data.loc[("as meant", "prodigy"), "data_for_weights"] == "train_and_validation"
    assert data.loc[("train", "prodigy"), "data_for_weights"] == "train"
    assert data.loc[("train", "prodigy"), "n_ok"] == 2
    probability = data["probability_estimate"]
    assert probability["as meant", "prodigy"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert probability["as meant", "ours_adamw"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert probability["train", "prodigy"] == 0
    assert probability["train", "ours_adamw"] == 1
    assert "ours_wd_lr" not in set(table.data["method"])
    assert set(table.body["Validation rows train"]) == {"yes", "no"}
    assert not any("data_for_weights" in note for note in table.notes)
    assert all(data["seeds_of_all"] == 3)


def test_horizons_has_a_row_for_every_discount_whatever_stands_for_the_method(tmp_path):
    for discount, value in ((0.9, 2.0), (0.95, 3.0), (0, 4.0)):
        key = "method.estimator.discount"
        make_run(tmp_path, "ours_discounted", "uci_energy", [value] * 3, config={key: discount})
    make_run(tmp_path, "random", "uci_energy", [9.0] * 3)
    make_run(tmp_path, "random", "uci_energy", np.ones((3, 9)))
    table = tables.build("horizons", tmp_path)
    assert list(table.data.sort_values("discount")["estimate"]) == [4.0, 2.0, 3.0, 9.0]
    rows = [row for row in table.body.index if "γ" in row]
    assert [row.rpartition(" ")[2] for row in rows] == ["0", "0.9", "0.95"]
    summary = tables.build("summary", tmp_path, methods=["ours_discounted"])
    assert number(summary, statistic="median")["estimate"] == 3.0


def test_hyperparameters_shows_those_that_a_rule_has(tmp_path):
    lr = np.array([[1e-3, 1e-2], [1e-5, 1e-4], [1e-3, np.nan]])
    nothing = np.full((3, 2), np.nan)
    metric = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, np.nan]])
    run = make_run(tmp_path, "ours_adamw", "uci_energy", metric, lr=lr, momentum=nothing)
    frame = pd.read_parquet(run.path / "final.parquet")
    columns = {"initial_beta1": [0.5, 0.7, 0.1], "beta1": [0.9, 0.8, np.nan]}
    columns |= {"initial_of_ones_own": [1.0] * 3, "of_ones_own": [2.0, 2.0, np.nan]}
    with_beta = pa.Table.from_pandas(
        frame.assign(initial_momentum=np.nan, **columns), preserve_index=False
    )
    schema = pq.read_schema(run.path / "final.parquet")
    pq.write_table(with_beta.replace_schema_metadata(schema.metadata), run.path / "final.parquet")
    make_run(tmp_path, "random", "uci_energy", [1.0])  # a run of before there was a β₁
    table = tables.build("hyperparameters", tmp_path)
    data = table.data.set_index(["method", "hyperparameter"])
    assert tuple(data.loc[("ours_adamw", "beta1"), ["initial", "final"]]) == pytest.approx(
        (0.6, 0.85)
    )
    assert data.loc[("ours_adamw", "lr"), "final"] == pytest.approx((1e-2 + 1e-4) / 2)
    assert ("ours_adamw", "momentum") not in data.index
    assert ("random", "beta1") not in data.index
    named = ["lr", "weight_decay", "momentum", "beta1", "of_ones_own"]
    assert list(table.body.columns) == [*named, "n_ok/n"]
