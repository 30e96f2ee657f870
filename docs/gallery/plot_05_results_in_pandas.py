"""
Results in pandas
=================

What is stored is two tidy tables, whatever computed it. ``load`` finds runs in a folder of results
without reading a table, and without importing torch.
"""

import hpo_bench

for method in ("random", "baydin", "ours_wd_lr_m"):
    hpo_bench.run(f"method={method}", dataset="diabetes", repetitions=20, progress=False)

results = hpo_bench.load("results", dataset="diabetes", where={"hyperparameter_updates": 400})
results

# %%
# **Pairs.** Repetitions of one seed start alike, whatever the method. So a difference by seed says
# more than a difference of medians.

final = results.final[results.final["method"].isin(["random", "baydin", "ours_wd_lr_m"])]
by_seed = final.pivot(index="seed", columns="method", values="test_metric")
(by_seed.lt(by_seed["random"], axis=0)).mean().drop("random").rename("better than random")

# %%
# **Starts.** Where does each method end, by the learning rate that it began with?

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for method, rows in final.groupby("method", sort=False):
    axes.scatter(rows["initial_lr"], rows["test_metric"], s=14, label=method)
axes.set(xscale="log", xlabel="Initial learning rate", ylabel="Final test MSE")
axes.legend()

# %%
# **Curves** are categories and numbers: a median over repetitions at each step is one line.

curves = results.curves
curves.groupby(["method", "step"], observed=True)["test_metric"].median().unstack("method").tail(3)
