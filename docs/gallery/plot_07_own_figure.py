"""
A figure of your own
====================

The paper's figures are drawn of any runs by ``hpo_bench.plot``, in one style and with the numbers'
making in small print. What they do not show is a few lines of Matplotlib over the tables.
"""

import hpo_bench

methods = ["random", "lorraine", "ours_wd_lr", "ours_wd_lr_m"]
results = hpo_bench.sweep(
    method=methods, dataset="diabetes", repetitions=20, hyperparameter_updates=200, progress=False
)
paper = hpo_bench.plot("fig09", results, method=methods)

# %%
# Here is another question: how far has each hyperparameter travelled, from where it was drawn to
# where it ended? Labels and colours are those of the runs.

import matplotlib.pyplot as plt

# sphinx_gallery_thumbnail_number = 2
tuned = ["lr", "weight_decay", "momentum"]
looks = {run.method: run.config["method"] for run in results.runs}
figure, panels = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for axes, name in zip(panels, tuned, strict=True):
    for method, rows in results.final.groupby("method", sort=False):
        look = looks[method]
        axes.scatter(
            rows[f"initial_{name}"], rows[name], s=12, color=look["colour"], label=look["label"]
        )
    if name != "momentum":
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=f"{name} at the start", ylabel=f"{name} at the end")
panels[0].legend(fontsize="small")

# %%
# Points on the diagonal have stayed where they were: they are of methods that do not tune it. To
# make a figure part of ``hpo-bench plot``, with its CSV and its manifest, see *Your own method,
# figure, data and model*.
