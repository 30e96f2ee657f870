"""What the figures plot, against hand-made stores."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpo_bench import figures
from hpo_bench.analysis import incumbent, paper
from hpo_bench.analysis.selection import find
from hpo_bench.analysis.summary import Measure
from hpo_bench.errors import UserError
from hpo_bench.figures import fig03, fig07, fig10, fig14
from hpo_bench.figures.common import points as common
from hpo_bench.figures.common import sensitivity
from hpo_bench.figures.common.base import Options, Points
from hpo_bench.figures.common.make import Request, figure_of, make
from hpo_bench.figures.common.needs import NeededRuns, Store, select
from hpo_bench.store.audits import complete_audits
from tests.figures.every_figure import MOMENTUM, add_costs, hypergradients, make_audit, over_time
from tests.make_store import make_run

QUICK = Options(resamples=50)
PAPER = Options("paper", resamples=50)


@pytest.fixture
def plotted(tmp_path: Path, selected):
    """Points of a figure from the results folder ``tmp_path``."""

    def of(name: str, options: Options = QUICK) -> Points:
        module = figures.find(name)
        return module.points(selected(module), options)

    return of


def curve(points: Points, method: str, **values: object) -> pd.DataFrame:
    frame = points.frame[points.frame["method"] == method]
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def count(points: Points, method: str) -> tuple[int, int]:
    found = [entry for entry in points.context["counts"] if entry["method"] == method]
    return sum(entry["n_ok"] for entry in found), sum(entry["n"] for entry in found)


class TestDistributions:
    """Empirical CDFs."""

    def test_diverged_runs_never_reach_the_curve(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [3.0, np.nan, 1.0, 2.0, np.nan])
        points = plotted("fig09")
        found = curve(points, "random")
        assert list(found["x"]) == [1.0, 2.0, 3.0]
        np.testing.assert_allclose(found["y"], [0.2, 0.4, 0.6])
        assert (found["low"] < found["y"]).all()
        assert (found["high"] > found["y"]).all()
        assert count(points, "random") == (3, 5)

    def test_a_method_of_which_all_diverged_keeps_its_count(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0])
        make_run(tmp_path, "baydin", "uci_energy", [np.nan, np.nan, np.nan])
        points = plotted("fig09")
        assert curve(points, "baydin").empty
        assert count(points, "baydin") == (0, 3)
        assert {method["name"] for method in points.context["methods"]} == {"random", "baydin"}

    def test_shards_of_one_configuration_are_one_curve(self, tmp_path, plotted):
        for seed, value in enumerate([4.0, 2.0, 3.0]):
            make_run(tmp_path, "random", "uci_energy", [value], first_seed=seed)
        assert list(curve(plotted("fig09"), "random")["x"]) == [2.0, 3.0, 4.0]

    def test_shows_the_dataset_s_unit(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_kin8nm", [0.002, 0.004])
        points = plotted("fig09")
        np.testing.assert_allclose(curve(points, "random")["x"], [2.0, 4.0])
        assert "1000" in points.context["panels"][0]["xlabel"]

    def test_methods_trained_for_longer_are_left_out_and_named(self, tmp_path, plotted):
        for method in ("random", "lorraine"):
            make_run(tmp_path, method, "uci_energy", np.ones((3, 5)))
        make_run(tmp_path, "baydin", "uci_energy", np.ones((3, 9)))
        points = plotted("fig09")
        assert set(points.frame["method"]) == {"random", "lorraine"}
        assert any("baydin" in note and "80 updates (kept: 40)" in note for note in points.notes)

    def test_three_batched_is_the_exact_distribution_over_all_triples(self, tmp_path, plotted):
        rng = np.random.default_rng(3)
        test, validation = rng.lognormal(size=(2, 7))
        test[2] = validation[2] = np.nan
        make_run(tmp_path, "random_validation", "uci_energy", test, validation_loss=validation)
        found = curve(plotted("fig09"), "random_3_batched")
        rank, value = (np.where(np.isnan(array), np.inf, array) for array in (validation, test))
        winners = [
            value[min(triple, key=lambda run: rank[run])]
            for triple in itertools.combinations(range(7), 3)
        ]
        for x, y in zip(found["x"], found["y"], strict=True):
            assert y == pytest.approx(np.mean(np.array(winners) <= x))
        assert found["low"].isna().all()

    def test_three_batched_of_the_paper_is_one_random_grouping_where_failures_win(
        self, tmp_path, plotted
    ):
        test = np.arange(1.0, 10.0)
        test[4] = np.nan
        make_run(tmp_path, "random_validation", "uci_energy", test)
        points = plotted("fig09", PAPER)
        assert count(points, "random_3_batched") == (2, 3)
        assert curve(points, "random_3_batched")["y"].max() == pytest.approx(2 / 3)
        assert points.frame[["low", "high"]].isna().all(axis=None)

    def test_too_few_runs_for_a_triple_draw_nothing(self, tmp_path, plotted):
        make_run(tmp_path, "random_validation", "uci_energy", [1.0, 2.0])
        points = plotted("fig09")
        assert curve(points, "random_3_batched").empty
        assert points.context["counts"][0]["text"] == "needs 3 runs"

    def test_losses_and_errors_of_classification_are_apart(self, tmp_path, plotted):
        make_run(tmp_path, "random", "fashion_mnist", [0.1, 0.2], test_loss=[0.5, 0.6])
        make_run(tmp_path, "random", "penn_treebank", [100.0, 90.0])
        loss = plotted("fig12")
        np.testing.assert_allclose(curve(loss, "random", dataset="fashion_mnist")["x"], [0.5, 0.6])
        assert [panel["xlabel"] for panel in loss.context["panels"]] == [
            "Test cross-entropy",
            "Test perplexity",
        ]
        error = plotted("fig13")
        assert list(error.frame["x"]) == [0.1, 0.2]

    def test_each_validation_share_is_a_panel_and_stays_out_of_the_main_figure(
        self, tmp_path, plotted, selected
    ):
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0], config={"validation_share": 0.25})
        make_run(tmp_path, "random", "uci_energy", [3.0, 4.0], config={"validation_share": 0.5})
        points = plotted("validation_share")
        assert {panel["key"] for panel in points.context["panels"]} == {"0.25", "0.5"}
        assert selected(figures.find("fig09")).empty

    def test_medium_windows_of_another_length_are_drawn_and_told(self, tmp_path, plotted):
        make_run(tmp_path, "random", "fashion_mnist", np.ones((2, 5)))
        make_run(
            tmp_path,
            "medium_diff_through_opt",
            "fashion_mnist",
            np.ones((2, 2)),
            update_interval=200,
        )
        points = plotted("batchnorm")
        assert set(points.frame["method"]) == {"random", "medium_diff_through_opt"}
        assert any("200" in text and "40" in text for text in points.statistics)

    def test_medium_windows_are_compared_with_whole_trainings_even_if_short_ones_are_more(
        self, tmp_path, plotted
    ):
        make_run(
            tmp_path, "random", "fashion_mnist", np.full((4, 2), 9.0), record_every=1000
        )  # the short problem
        assert set(plotted("batchnorm").frame["x"]) == {9.0}
        make_run(
            tmp_path,
            "random",
            "fashion_mnist",
            np.ones((2, 2)),
            record_every=50_000,
            suffix="whole",
        )
        assert set(plotted("batchnorm").frame["x"]) == {1.0}

    def test_sets_without_a_rival_stay_out_of_the_comparison_with_rivals(self, tmp_path, plotted):
        for dataset in ("uci_energy", "uci_kin8nm"):
            make_run(tmp_path, "random", dataset, [1.0, 2.0])
        assert plotted("rivals").frame.empty
        assert plotted("rivals_cdf").frame.empty
        make_run(tmp_path, "prodigy", "uci_energy", [1.0, 2.0])
        assert set(plotted("rivals").frame["dataset"]) == {"uci_energy"}
        assert set(plotted("rivals_cdf").frame["dataset"]) == {"uci_energy"}

    def test_sets_without_adamw_stay_out_of_its_figure(self, tmp_path, plotted):
        for dataset in ("uci_energy", "uci_kin8nm"):
            make_run(tmp_path, "ours_wd_lr_m", dataset, [1.0, 2.0])
        make_run(tmp_path, "ours_adamw", "uci_kin8nm", [3.0, 4.0])
        assert set(plotted("any_update").frame["dataset"]) == {"uci_kin8nm"}


class TestEvolutions:
    """Medians over the training."""

    def test_is_the_median_where_every_resample_agrees(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", np.tile([9.0, 4.0, 2.0], (6, 1)))
        found = curve(plotted("fig08"), "random")
        assert list(found["step"]) == [0, 10, 20]
        for column in ("y", "low", "high"):
            np.testing.assert_allclose(found[column], [9.0, 4.0, 2.0])

    def test_goes_to_infinity_when_most_runs_have_failed_and_the_paper_drops_those(
        self, tmp_path, plotted
    ):
        values = np.tile([9.0, 4.0, 2.0], (6, 1))
        values[:4, 2] = np.nan
        make_run(tmp_path, "random", "uci_energy", values)
        assert np.isinf(curve(plotted("fig08"), "random")["y"].iloc[-1])
        assert curve(plotted("fig08", PAPER), "random")["y"].iloc[-1] == 2.0
        assert count(plotted("fig08"), "random") == (2, 6)

    def test_a_single_seed_has_a_line_and_no_band(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [3.0])
        found = curve(plotted("fig08"), "random")
        assert found["y"].iloc[-1] == 3.0
        assert found[["low", "high"]].isna().all(axis=None)

    def test_long_curves_are_thinned_and_keep_both_ends(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", np.ones((2, 1001)), record_every=1)
        steps = curve(plotted("fig08"), "random")["step"]
        assert steps.min() == 0
        assert steps.max() == 1000
        assert len(steps) <= 1.5 * common.POINTS_A_CURVE

    def test_feeds_of_random_3_batched_are_not_drawn(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [3.0, 2.0])
        make_run(tmp_path, "random_validation", "uci_energy", [3.0, 2.0])
        assert set(plotted("fig08").frame["method"]) == {"random"}

    def test_weights_that_go_back_are_shown_before_they_do(self, tmp_path, plotted):
        values = np.array(
            [[9.0, 5.0, 9.0, 4.0, 9.0, 3.0, 2.0]]
        )  # steps 0, 100, …, 600; back at 200 and 400
        make_run(
            tmp_path,
            "long_diff_through_opt",
            "uci_energy",
            values,
            update_interval=200,
            record_every=100,
            config={"method.reset_weights": True},
        )
        found = curve(plotted("fig16"), "long_diff_through_opt", part="evolution")
        assert list(found["step"]) == [100, 300, 600]
        assert list(found["y"]) == [5.0, 4.0, 2.0]

    def test_run_time_is_the_share_of_a_block(self, tmp_path, plotted):
        make_run(
            tmp_path,
            "random",
            "uci_energy",
            np.ones((4, 21)),
            seconds=8.0,
            config={"hyperparameter_updates": 20},
        )
        found = curve(plotted("fig16"), "random", part="evolution")
        assert found["seconds"].iloc[-1] == pytest.approx(8.0 / 4)

    def test_full_horizon_is_compared_on_its_own_initialisations(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [5.0, 6.0, 7.0, 8.0])
        make_run(tmp_path, "full_diff_through_opt", "uci_energy", [1.0, 2.0], update_interval=4000)
        points = plotted("fig18")
        assert count(points, "random") == (2, 2)
        assert list(curve(points, "random", part="cdf")["x"]) == [5.0, 6.0]


class TestLearningRates:
    """Figure 10."""

    def test_all_methods_start_from_the_same_seed_and_per_weight_rates_stay_out(
        self, tmp_path, plotted
    ):
        rates = np.array([[1e-3, 1e-2], [1e-4, 1e-2]])
        make_run(
            tmp_path,
            "random",
            "uci_energy",
            np.ones((2, 2)),
            lr=np.repeat(rates[:, :1], 2, axis=1),
            first_seed=3,
        )
        make_run(tmp_path, "baydin", "uci_energy", np.ones((2, 2)), lr=rates, first_seed=3)
        make_run(
            tmp_path,
            "ours_wd_lr",
            "uci_energy",
            np.ones((2, 2)),
            first_seed=0,
            config={"method.per_weight": ["lr"]},
        )
        points = plotted("fig10")
        assert points.context["panels"][0]["seed"] == 3
        assert set(points.frame["method"]) == {"random", "baydin"}
        assert set(points.frame.loc[points.frame["step"] == 0, "y"]) == {1e-3}
        assert list(curve(points, "random")["y"]) == [1e-3, 1e-3]

    def test_the_lowest_of_the_seeds_that_most_methods_have(self, tmp_path):
        make_run(tmp_path, "random", "uci_energy", [1.0, 2.0], first_seed=0)
        make_run(tmp_path, "baydin", "uci_energy", [1.0, 2.0], first_seed=1)
        assert fig10.common_seed(find(tmp_path)) == 1

    def test_a_repetition_that_two_runs_have_is_one_line(self, tmp_path, plotted):
        rates = np.array([[1e-3, 1e-2, 1e-1]])
        make_run(tmp_path, "baydin", "uci_energy", np.ones((1, 3)), lr=rates)
        make_run(tmp_path, "baydin", "uci_energy", np.ones((2, 3)), lr=np.repeat(rates, 2, axis=0))
        assert list(curve(plotted("fig10"), "baydin")["step"]) == [0, 10, 20]

    def test_divergence_is_marked(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [[1.0, np.nan, np.nan]])
        make_run(tmp_path, "baydin", "uci_energy", [[1.0, 1.0, 1.0]])
        points = plotted("fig10")
        assert set(curve(points, "random")["status"]) == {"diverged"}
        assert set(curve(points, "baydin")["status"]) == {"complete"}

    def test_learning_rates_of_adamw_stand_beside_those_of_sgd(self, tmp_path, plotted, selected):
        rates = np.array([[1e-3, 1e-2]])
        make_run(tmp_path, "random", "uci_energy", np.ones((1, 2)), lr=rates)
        beside = selected(figures.find("fig10")).missing
        make_run(tmp_path, "ours_adamw", "uci_energy", np.ones((1, 2)), lr=3 * rates)
        points = plotted("fig10")
        assert list(curve(points, "ours_adamw")["y"]) == [3e-3, 3e-2]
        assert list(curve(points, "random")["y"]) == [1e-3, 1e-2]
        assert not any("adamw" in name for missing in beside for name in missing.methods)


class TestRivals:
    """Medians against cost, ranks, profiles."""

    @pytest.fixture
    def store(self, tmp_path):
        for dataset, factor in (("uci_energy", 1.0), ("uci_power", 10.0)):
            for method, final, products in (
                ("adamw_default", 2.0, 0),
                ("prodigy", 1.0, 0),
                ("ours_adamw", 3.0, 8),
            ):
                rows = factor * np.array([[8.0, 4.0, final]] * 2 + [[8.0, np.nan, np.nan]])
                run = make_run(tmp_path, method, dataset, rows, seconds=3.0)
                add_costs(run, 40, products)
        make_run(tmp_path, "dog", "uci_energy", np.ones((3, 3)))
        return tmp_path

    def test_each_cost_has_the_same_medians(self, store, plotted):
        points = plotted("rivals")
        for method, work in (("prodigy", 40), ("ours_adamw", 40 + 2 * 8)):
            of_axis = {
                axis: curve(points, method, dataset="uci_power", part=axis)
                for axis in incumbent.AXES
            }
            final = 10.0 if method == "prodigy" else 30.0
            for frame in of_axis.values():
                assert list(frame["y"]) == [40.0, final]
            assert list(of_axis["weight_updates"]["x"]) == [10, 20]
            np.testing.assert_allclose(
                of_axis["gradient_equivalents"]["x"], np.array([10, 20]) * work / 20
            )
            assert of_axis["seconds"]["x"].iloc[-1] == pytest.approx(3.0 / 3)

    def test_ranks_are_of_the_methods_that_all_sets_have(self, store, plotted):
        points = plotted("ranks")
        means = points.frame[points.frame["part"] == "mean"].set_index("method")["rank"]
        assert dict(means) == {"adamw_default": 2.0, "prodigy": 1.0, "ours_adamw": 3.0}
        assert any("dog: left out" in note and "uci_power" in note for note in points.notes)
        assert points.context["cliques"] == [[0, 2]]
        assert any(text.startswith("Friedman p = 0.1") for text in points.statistics)

    def test_what_is_said_over_datasets_needs_two(self, tmp_path, plotted):
        make_run(tmp_path, "prodigy", "uci_energy", [1.0, 2.0])
        for name in ("ranks", "profiles"):
            points = plotted(name)
            assert points.frame.empty
            assert "at least 2 datasets" in points.notes[-1]

    def test_profiles_by_the_final_value_and_by_the_cost_of_the_target(self, store, plotted):
        points = plotted("profiles")
        final = {
            method: list(curve(points, method, panel="final")["x"])
            for method in ("prodigy", "adamw_default", "ours_adamw")
        }
        assert final == {"prodigy": [1], "adamw_default": [2], "ours_adamw": [3]}
        # The target, 2, is reached at the last step by two methods, by the third never.
        assert list(curve(points, "prodigy", panel="cost")["x"]) == [1]
        assert list(curve(points, "adamw_default", panel="cost")["y"]) == [1]
        assert curve(points, "ours_adamw", panel="cost").empty

    def test_the_version_on_training_rows_is_drawn_where_it_is_asked_for(self, tmp_path):
        for rows, value in (("train_and_validation", 1.0), ("train", 5.0)):
            own = {"method.data_for_weights": "train_and_validation", "data_for_weights": rows}
            make_run(tmp_path, "prodigy", "uci_energy", [value] * 3, config=own, suffix=rows)
        runs = Store.of(find(tmp_path))
        for where, value in (({}, 1.0), ({"data_for_weights": "train"}, 5.0)):
            module = figures.find("rivals_cdf")
            needs = [need.narrowed((), (), where) for need in module.NEEDS]
            selection = select(needs, lambda folder: runs, str(tmp_path))
            assert set(module.points(selection, QUICK).frame["x"]) == {value}


class TestHorizons:
    """The final metric over the discount."""

    def test_medians_by_discount_of_the_seeds_that_all_have(self, tmp_path, plotted):
        for discount, values in ((0, [3.0, 1.0, 2.0]), (0.95, [np.nan, 5.0, 4.0, 1e-9])):
            make_run(
                tmp_path, "ours_discounted", "uci_energy", values,
                config={"method.estimator.discount": discount}, suffix=str(discount),
            )  # fmt: skip
        make_run(tmp_path, "random", "uci_energy", [7.0, 7.0, 7.0])
        make_run(tmp_path, "random", "uci_energy", np.ones((9, 9)))  # of another length
        points = plotted("horizons")
        cells = curve(points, "ours_discounted").set_index("discount")
        assert dict(cells["y"]) == {0.0: 2.0, 0.95: 5.0}
        assert list(cells["n"]) == [3, 3]
        assert list(cells["n_ok"]) == [3, 2]
        assert list(curve(points, "random")["y"]) == [7.0]


class TestLandscape:
    """Figure 3."""

    @pytest.fixture
    def points(self, tmp_path, plotted):
        rng = np.random.default_rng(1)
        log_lr, log_decay = rng.uniform(-6, 1, size=60), rng.uniform(-7, 2, size=60)
        final = 10 ** (0.3 * np.abs(log_lr + 2))
        final[log_lr > 0] = np.nan
        wide = {
            "init.log10_lr": [-6, 1],
            "init.log10_weight_decay": [-7, 2],
            "init.momentum": MOMENTUM,
        }
        both = {
            name: np.repeat(10 ** values[:, None], 2, axis=1)
            for name, values in (("lr", log_lr), ("weight_decay", log_decay))
        }
        values = np.column_stack([np.full(60, 9.0), final])
        make_run(tmp_path, "random", "uci_energy", values, config=wide, **both)
        make_run(tmp_path, "random", "uci_energy", [1.0] * 30, suffix="-main")
        path = np.geomspace(1e-5, 1e-2, 300)[None, :] * np.ones((25, 1))
        make_run(
            tmp_path,
            "ours_wd_lr",
            "uci_energy",
            np.ones((25, 300)),
            lr=path,
            config={"init.momentum": MOMENTUM},
        )
        return plotted("fig03")

    def test_diverged_runs_are_the_upper_end_of_the_scale(self, points):
        samples = points.frame[points.frame["part"] == "sample"]
        assert len(samples) == 60
        assert (samples.loc[samples["log10_lr"] > 0, "value"] == fig03.DIVERGED_AS).all()

    def test_the_background_follows_its_samples(self, points):
        background = points.frame[points.frame["part"] == "background"]
        assert len(background) == fig03.GRID**2
        expected = 10 ** (0.3 * np.abs(background["log10_lr"] + 2))
        inner = background["log10_lr"].between(-5.5, -1.5)
        np.testing.assert_allclose(background["value"][inner], expected[inner], rtol=0.35)

    def test_trajectories_are_few_thinned_and_whole(self, points):
        paths = points.frame[points.frame["part"] == "trajectory"]
        assert paths["path"].nunique() == fig03.SHOWN
        assert paths.groupby("path").size().max() <= 1.5 * fig03.POINTS
        ends = paths.groupby("path")["log10_lr"].agg(["first", "last"])
        np.testing.assert_allclose(ends, np.tile([-5.0, -2.0], (fig03.SHOWN, 1)))


class TestSensitivity:
    """Figures 4 and 6."""

    def test_cells_are_medians_and_mostly_diverged_ones_infinite(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [3.0, 5.0, 4.0])
        make_run(
            tmp_path, "ours_wd_lr_m", "uci_energy", [1.0, 3.0, 2.0], update_interval=2, look_back=3
        )
        make_run(
            tmp_path,
            "ours_wd_lr_m",
            "uci_energy",
            [1.0, np.nan, np.nan],
            update_interval=4,
            look_back=1,
        )
        make_run(
            tmp_path, "diff_through_opt", "uci_energy", [1.0], update_interval=2, look_back=3
        )  # i > T: no cell
        points = plotted("fig06")
        medians = points.frame.set_index(["method", "update_interval", "look_back"])[
            "median"
        ].to_dict()
        assert medians == {
            ("random", 0, 0): 4.0,
            ("ours_wd_lr_m", 2, 3): 2.0,
            ("ours_wd_lr_m", 4, 1): np.inf,
        }
        grid = sensitivity.grid(curve(points, "ours_wd_lr_m"), "median")
        assert grid[1, 2] == 2.0
        assert np.isnan(grid).sum() == grid.size - 2
        assert sensitivity.norm(points.frame).vmin == 0

    def test_every_cell_has_the_same_initialisations(self, tmp_path, plotted):
        make_run(tmp_path, "random", "uci_energy", [3.0, 5.0, 4.0, 90.0, 90.0])
        make_run(
            tmp_path, "ours_wd_lr_m", "uci_energy", [1.0, 3.0, 2.0], update_interval=2, look_back=3
        )
        make_run(
            tmp_path,
            "ours_wd_lr_m",
            "uci_energy",
            [1.0, 1.0, 1.0, 8.0, 8.0],
            update_interval=4,
            look_back=1,
        )
        frame = plotted("fig06").frame
        assert list(frame["median"]) == [4.0, 2.0, 1.0]
        assert set(frame["n"]) == {3}

    def test_the_paper_drops_diverged_runs(self, tmp_path, plotted):
        make_run(
            tmp_path,
            "ours_wd_lr_m",
            "uci_energy",
            [1.0, np.nan, np.nan],
            update_interval=4,
            look_back=1,
        )
        assert list(plotted("fig06", PAPER).frame["median"]) == [1.0]

    def test_all_cells_have_as_many_hyperparameter_updates(self, tmp_path, plotted):
        for interval in (1, 2):
            make_run(
                tmp_path,
                "ours_wd_lr_m",
                "uci_energy",
                np.ones((2, 4)),
                update_interval=interval,
                look_back=1,
            )
        make_run(
            tmp_path, "ours_wd_lr_m", "uci_energy", np.ones((2, 9)), update_interval=3, look_back=1
        )
        assert set(plotted("fig04").frame["update_interval"]) == {1, 2}


class TestHypergradientError:
    """Figure 7."""

    def store(self, results, approximate, exact, look_back=2, seeds=(0, 0)):
        for method, values, first in (
            ("ours_wd_lr_m", approximate, seeds[0]),
            ("diff_through_opt", exact, seeds[1]),
        ):
            make_run(
                results,
                method,
                "uci_energy",
                np.ones((len(values), 2)),
                update_interval=3,
                look_back=look_back,
                first_seed=first,
                config={"hyper.clip_log10_lr": None, "save_hypergradients": True},
                hypergradients=hypergradients(values, first),
            )

    def error(self, points, kind, name):
        frame = points.frame.set_index(["kind", "hyperparameter"])
        return float(frame.loc[(kind, name), "error"])

    def test_absolute_and_relative_errors(self, tmp_path, plotted):
        exact = np.array([[1.0, 10.0, -2.0], [2.0, 10.0, -4.0], [4.0, 10.0, 8.0]])
        self.store(tmp_path, exact * [1.5, 1.0, 0.0], exact)
        points = plotted("fig07")
        assert self.error(points, "absolute", "lr") == pytest.approx(0.5 * 7 / 3)
        assert self.error(points, "relative", "lr") == pytest.approx(0.5)
        assert self.error(points, "absolute", "weight_decay") == 0
        assert self.error(points, "relative", "momentum") == pytest.approx(1.0)

    def test_the_paper_compares_adam_steps_of_two_hyperparameters(self, tmp_path, plotted):
        exact = np.ones((4, 3))
        self.store(tmp_path, exact * [[3.0], [-1.0], [7.0], [-1.0]], exact)
        points = plotted("fig07", PAPER)
        assert set(points.frame["hyperparameter"]) == {"lr", "weight_decay"}
        assert self.error(points, "step", "lr") == pytest.approx(
            1.0, rel=1e-6
        )  # two of four signs differ

    def test_only_shared_repetitions_count_and_infinite_errors_are_told(self, tmp_path, plotted):
        exact = np.ones((4, 3))
        approximate = exact * 2
        approximate[3] = np.nan
        self.store(tmp_path, approximate, exact, seeds=(0, 2))  # shared: seeds 2 and 3
        points = plotted("fig07")
        assert set(points.frame["n"]) == {2}
        assert set(points.frame["n_ok"]) == {1}

    def test_one_method_alone_cannot_be_drawn(self, tmp_path, plotted):
        make_run(
            tmp_path,
            "ours_wd_lr_m",
            "uci_energy",
            [1.0],
            update_interval=3,
            look_back=2,
            config={"hyper.clip_log10_lr": None, "save_hypergradients": True},
            hypergradients=hypergradients(np.ones((1, 3))),
        )
        assert plotted("fig07").runs == ()
        assert fig07.NEEDS


class TestTimes:
    """Figure 14."""

    def test_only_repetitions_alone_in_their_block(self, tmp_path):
        config = {"chunk": 1}
        make_run(
            tmp_path, "random", "fashion_mnist", [1.0], rows_in_block=1, seconds=3.0, config=config
        )
        make_run(
            tmp_path,
            "random",
            "fashion_mnist",
            [1.0, 1.0],
            first_seed=5,
            rows_in_block=2,
            config=config,
        )
        points = fig14.points(
            NeededRuns({"evaluated": find(tmp_path)}, ("fashion_mnist",), ()), QUICK
        )
        assert list(points.frame["seconds"]) == [3.0]
        assert set(points.frame["part"]) == {"evaluated"}

    def test_evaluations_at_both_ends_are_no_part_of_a_short_training(self, tmp_path):
        metric, alone = np.ones((1, 2)), {"rows_in_block": 1, "seconds": 3.0}
        for record_every in (50, fig14.NEVER):
            config = {"chunk": 1, "hyperparameter_updates": 1, "record_every": record_every}
            run = make_run(
                tmp_path, "random", "fashion_mnist", metric, config=config,
                suffix=str(record_every), **alone,
            )  # fmt: skip
            document = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
            document["seconds"] = {"train": 1.0, "evaluate": 2.0, "total": 3.0}
            (run.path / "run.json").write_text(json.dumps(document), encoding="utf-8")
        selected = {
            "evaluated": [run for run in find(tmp_path) if run.config["record_every"] == 50],
            "bare": [run for run in find(tmp_path) if run.config["record_every"] != 50],
        }
        points = fig14.points(NeededRuns(selected, ("fashion_mnist",), ()), QUICK)
        assert list(points.frame["part"]) == ["bare"]
        assert list(points.frame["seconds"]) == pytest.approx([1.0])
        note = "fashion_mnist: too short for a test evaluation between its ends"
        assert points.notes == (note,)
        only_evaluated = NeededRuns({"evaluated": selected["evaluated"]}, ("fashion_mnist",), ())
        assert fig14.points(only_evaluated, QUICK).frame.empty


class TestIncumbent:
    """Best so far against run time."""

    def test_restarts_are_the_median_best_of_all_subsets(self, tmp_path, plotted):
        rng = np.random.default_rng(0)
        test, validation = rng.lognormal(size=(2, 6))
        make_run(
            tmp_path, "ours_wd_lr_m", "uci_energy", test, validation_loss=validation, seconds=2.0
        )
        found = curve(plotted("incumbent"), "ours_wd_lr_m", part="seconds").set_index("k")
        for k in (1, 2, 6):
            winners = [
                test[min(group, key=lambda run: validation[run])]
                for group in itertools.combinations(range(6), k)
            ]
            assert found.loc[k, "y"] == pytest.approx(
                np.quantile(winners, 0.5, method="inverted_cdf")
            )
            assert found.loc[k, "x"] == pytest.approx(2.0 * k)

    def test_a_search_keeps_what_validates_best_whatever_its_test_value(self):
        curves = pd.DataFrame(
            {
                "step": [10, 20, 30, 40],
                "elapsed_s": [2.0, 4.0, 6.0, 8.0],
                "gradients": [11, 22, 33, 44],
                "hessian_products": [4, 8, 12, 16],
                "validation_loss": [3.0, np.nan, 2.0, 2.5],
                "test_metric": [1.0, 0.1, 5.0, 0.2],
            }
        )
        path = incumbent.path(curves, Measure("test_metric", "Test MSE", 10.0), 2.0)
        assert list(path.costs["seconds"]) == [1.0, 3.0, 4.0]
        assert list(path.costs["weight_updates"]) == [10, 30, 40]
        assert list(path.costs["gradient_equivalents"]) == [19, 57, 76]
        assert list(path.values) == [10.0, 50.0, 50.0]
        at = path.at("seconds", np.array([0.5, 1.0, 2.9, 3.0, 9.0]))
        assert list(at) == [np.inf, 10.0, 10.0, 50.0, 50.0]

    def test_methods_without_validation_loss_are_left_out_and_named(self, tmp_path, plotted):
        missing = np.full((3, 5), np.nan)
        make_run(tmp_path, "ours_wd_hdlr_m", "uci_energy", np.ones((3, 5)), validation_loss=missing)
        make_run(tmp_path, "ours_wd_lr_m", "uci_energy", np.ones((3, 5)))
        points = plotted("incumbent")
        assert set(points.frame["method"]) == {"ours_wd_lr_m"}
        assert any("ours_wd_hdlr_m" in note and "validation" in note for note in points.notes)


def test_styles_travel_with_the_runs_in_their_order(tmp_path, plotted):
    make_run(
        tmp_path,
        "ours_wd_lr_m",
        "uci_energy",
        [1.0, 2.0],
        config={"method.colour": "#123456", "method.order": 2},
    )
    make_run(
        tmp_path,
        "random",
        "uci_energy",
        [1.0, 2.0],
        config={"method.order": 7, "method.line_style": ":"},
    )
    first, second = plotted("fig09").context["methods"]
    assert (first["name"], first["colour"]) == ("ours_wd_lr_m", "#123456")
    assert (second["name"], second["line_style"]) == ("random", ":")


def test_every_paper_method_but_the_helper_is_trained():
    assert set(paper.ONE_PASS) - set(paper.TRAINED) == {"random_validation"}


class TestHorizon:
    """Hypergradients against what happens later, from audits instead of runs."""

    def drawn(self, results):
        stored = Store.of(complete_audits(results, "over_time"))
        module = figures.find("horizon")
        return module.points(select(module.NEEDS, lambda folder: stored, str(results)), QUICK)

    def test_shares_of_signs_and_medians_of_sizes(self, tmp_path):
        approximate = np.ones((4, 2, 2))
        exact = np.full((4, 2, 2), 2.0)
        exact[0, 0, 1], exact[1, :, 1], exact[2, 1, 1] = -4, -8, np.inf
        make_audit(tmp_path, "ours_wd_lr_m", "uci_energy", over_time(approximate, exact))
        points = self.drawn(tmp_path)
        of_lr = points.frame[points.frame["hyperparameter"] == "lr"]
        found = of_lr.set_index(["kind", "moment", "x"])
        assert found.y["sign", 10, 1] == 1
        assert found.y["sign", 10, 10] == 0.5
        assert found.y["sign", 20, 10] == pytest.approx(2 / 3)
        assert (found.n["sign", 20, 10], found.n["sign", -1, 10]) == (3, 7)
        assert found.y["size", 10, 10] == pytest.approx(np.median([1 / 4, 1 / 8, 1 / 2, 1 / 2]))
        assert set(points.frame["hyperparameter"]) == {"lr", "weight_decay", "momentum"}
        assert "3 of 48 comparisons not finite" in " ".join(points.statistics)

    def test_the_largest_audit_is_drawn_and_the_other_is_named(self, tmp_path):
        for name, seeds in (("small", 2), ("large", 5)):
            values = np.ones((seeds, 1, 2))
            make_audit(tmp_path, "ours_wd_lr_m", "uci_energy", over_time(values, values), name)
        points = self.drawn(tmp_path)
        assert [run.run_id for run in points.runs] == ["large"]
        assert points.notes == ("uci_energy, ours_wd_lr_m: left out small",)

    def test_runs_are_no_audits_and_audits_no_runs(self, tmp_path):
        make_run(tmp_path, "ours_wd_lr_m", "uci_energy", [1.0, 2.0])
        (missing,) = list(make(["horizon"], Request(str(tmp_path), find(tmp_path), tmp_path)))
        assert not missing.files
        assert "hpo-bench audit --over-time method=ours_wd_lr_m" in missing.missing[0].command
        with pytest.raises(UserError, match="audit --over-time"):
            figure_of("horizon", find(tmp_path), QUICK)
        values = np.ones((2, 1, 2))
        make_audit(tmp_path, "ours_wd_lr_m", "uci_energy", over_time(values, values))
        assert figure_of("horizon", find(tmp_path), QUICK).axes
