"""
Auditing a hypergradient
========================

How wrong is an approximate hypergradient? An audit takes three of them from the very same weight
updates: the method's own, the exact one through the last i of them, and finite differences.
From a shell it is ``hpo-bench audit method=ours_wd_lr_m dataset=diabetes``.
"""

from hpo_bench.experiments import audit

grid = audit.AuditGrid(intervals=(10,), look_backs=(1, 2, 3, 5, 7, 10), hyper_update=20)
asked = ["method=ours_wd_lr_m", "dataset=diabetes", "repetitions=20"]
audited = audit.run(audit.cells(asked, grid.hyper_update), grid)
errors = audited.frame[audited.frame["hyperparameter"] != audit.ALL]
errors[["seed", "look_back", "hyperparameter", "approximate", "exact", "finite_difference"]].head()

# %%
# Exact differentiation and finite differences agree, so that the exact one can be trusted:

audit.check_of_exact(audited.frame)

# %%
# The approximation is exact for i = 1. Beyond, it is off in size, by the median of the repetitions,
# and points the same way in nearly all of them.

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for name, rows in errors.groupby("hyperparameter"):
    cells = rows.groupby("look_back")
    left.plot(cells["relative_error"].median(), marker="o", label=name)
    same = rows["approximate"] * rows["exact"] > 0
    right.plot(same.groupby(rows["look_back"]).mean(), marker="o", label=name)
left.set(xlabel="Look-back distance i", ylabel="Median relative error")
right.set(xlabel="Look-back distance i", ylabel="Share of the same sign", ylim=(0, 1.05))
left.legend()
