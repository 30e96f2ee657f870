"""
AdamW, tuned in one pass
========================

The paper tunes SGD with momentum. The same series goes through any weight update that can be
differentiated; here through AdamW, whose learning rate, weight decay and β₁ are tuned while it
learns to read digits.
"""

import hpo_bench

methods = ["random_adam", "adamw_default", "ours_adamw"]
results = hpo_bench.sweep(
    method=methods,
    dataset="digits",
    batch_size=100,
    repetitions=12,
    hyperparameter_updates=60,
    progress=False,
)
results.summary()[["label", "metric", "median", "mean", "best", "ok", "repetitions"]]

# %%
# Random draws depend on luck, and the defaults of PyTorch are a good draw. Tuning begins with the
# same random draws, and ends with lower errors than both:

import matplotlib.pyplot as plt

looks = {run.method: run.config["method"] for run in results.runs}
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
for method, final in results.final.groupby("method", sort=False):
    look = looks[method]
    left.ecdf(final["test_metric"], color=look["colour"], label=look["label"])
left.set(xscale="log", xlabel="Final test error", ylabel="Share of the repetitions")
left.legend(fontsize="small")
tuned = results.curves[results.curves["method"] == "ours_adamw"]
for _, curve in tuned.groupby("seed"):
    right.semilogy(curve["step"], curve["lr"], color=looks["ours_adamw"]["colour"], linewidth=0.8)
right.set(xlabel="Weight update", ylabel="Learning rate of AdamW")
