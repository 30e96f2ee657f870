"""
Long horizons
=============

A hyperparameter acts on all the updates that follow. The paper's method looks back over a few of
them; ``ours_discounted`` carries its derivatives on through the whole training and forgets them
slowly, by a factor of 0.95 at each update; ``rtho`` never forgets.
"""

import hpo_bench

methods = ["random", "ours_wd_lr_m", "ours_discounted", "rtho"]
results = hpo_bench.sweep(
    method=methods,
    dataset="diabetes",
    repetitions=12,
    hyperparameter_updates=150,
    progress=False,
)
results.summary()[["label", "median", "mean", "best", "ok", "repetitions"]]

# %%
# All three find the same error, and at first the same way to it. Later the longest memory lowers
# learning rate and momentum again, which the others keep.

import matplotlib.pyplot as plt

looks = {run.method: run.config["method"] for run in results.runs}
middle = results.curves.groupby(["method", "step"], observed=True)[
    ["test_metric", "lr", "momentum"]
].median()
figure, panels = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for method in methods:
    for axes, name in zip(panels, ("test_metric", "lr", "momentum"), strict=True):
        style = {"color": looks[method]["colour"], "label": looks[method]["label"]}
        axes.plot(middle.loc[method, name], **style)
panels[0].set(ylabel="Median test MSE", yscale="log")
panels[1].set(ylabel="Median learning rate", yscale="log")
panels[2].set(ylabel="Median momentum")
for axes in panels:
    axes.set_xlabel("Weight update")
panels[0].legend(fontsize="x-small")

# %%
# What it costs: a Hessian-vector product for each hyperparameter at every weight update, where the
# paper's method takes four of them for every ten. The method cards have these counts.
