"""
A table of your own
===================

Any CSV with a column to predict can be trained on. Here one is written first: a pendulum's period,
measured with some noise, by its length and amplitude.
"""

import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
length, amplitude = rng.uniform(0.1, 2, 400), rng.uniform(0, 1.2, 400)
period = 2 * np.pi * np.sqrt(length / 9.81) * (1 + amplitude**2 / 16)
table = pd.DataFrame({"length": length, "amplitude": amplitude})
table["period"] = period + 0.01 * rng.normal(size=400)
table.to_csv("pendulum.csv", index=False)
table.head()

# %%
# ``dataset.path`` and ``dataset.target`` say where it is and what is to be predicted; what the
# task is follows from the column. Rows are shuffled and divided, inputs and targets standardised.

import hpo_bench

results = hpo_bench.sweep(
    "dataset=csv",
    "dataset.path=pendulum.csv",
    "dataset.target=period",
    method=["random", "ours_wd_lr", "ours_wd_lr_m"],
    repetitions=20,
    hyperparameter_updates=200,
    progress=False,
)
results.summary()

# %%
# All methods start from the same twenty initialisations, so that they can be compared one by one.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for method, final in results.final.groupby("method", sort=False):
    axes.ecdf(final["test_metric"], label=method)
axes.set(xscale="log", xlabel="Final test MSE (s²)", ylabel="Share of the repetitions")
axes.legend()
