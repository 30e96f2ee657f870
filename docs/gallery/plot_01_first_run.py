"""
A first run
===========

Twenty networks are trained on diabetes data, each from a start of its own. Learning rate, weight
decay and momentum are tuned while they train.
"""

import hpo_bench

results = hpo_bench.run("method=ours_wd_lr_m", dataset="diabetes", repetitions=20, progress=False)
results.summary()

# %%
# ``median`` is that of the test error over the repetitions; one that diverged would count as +inf.
# Each repetition is a row of ``results.final``:

results.final[["seed", "status", "test_metric", "initial_lr", "lr", "momentum"]].head()

# %%
# The curves have a row for each weight update. Learning rates that start five decades apart come
# together, and the test error hardly depends on where they started:

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for _, curve in results.curves.groupby("seed"):
    left.semilogy(curve["step"], curve["lr"], color="#0072B2", linewidth=0.8)
    right.semilogy(curve["step"], curve["test_metric"], color="#0072B2", linewidth=0.8)
left.set(xlabel="Weight update", ylabel="Learning rate")
right.set(xlabel="Weight update", ylabel="Test MSE")

# %%
# The same from a shell is ``hpo-bench run method=ours_wd_lr_m dataset=diabetes repetitions=20``.
# It would find this run in the store and compute nothing.
