"""
A sweep
=======

Every combination of some values is computed in one pool. Cells that differ in their look-back
distance alone are rows of one program, so that this grid costs little more than its columns.
"""

import hpo_bench

results = hpo_bench.sweep(
    method="ours_wd_lr_m",
    dataset="diabetes",
    update_interval=[2, 5, 10],
    look_back=[1, 3, 5, 7],
    repetitions=10,
    hyperparameter_updates=100,
    progress=False,
)
results.summary()[["update_interval", "look_back", "median", "ok", "repetitions"]]

# %%
# Settings in which the runs differ are columns of every table, so that a grid is one ``pivot``.

import matplotlib.pyplot as plt

grid = results.summary().pivot(index="update_interval", columns="look_back", values="median")
figure, axes = plt.subplots(figsize=(4.6, 3), layout="constrained")
shades = axes.imshow(grid, cmap="viridis_r", aspect="auto")
axes.set_xticks(range(len(grid.columns)), grid.columns)
axes.set_yticks(range(len(grid.index)), grid.index)
axes.set(xlabel="Look-back distance i", ylabel="Update interval T")
figure.colorbar(shades, label="Median final test MSE")

# %%
# Each row of this grid trains for another number of weight updates, T times 100: compare within a
# row, or give ``hyperparameter_updates`` its own value for each T.
