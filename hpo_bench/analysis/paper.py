"""What the paper compares (its Section 4 and appendices): data sets, methods, repetitions."""

from __future__ import annotations

import math

UCI = (
    "uci_energy",
    "uci_kin8nm",
    "uci_power",
    "uci_boston",
    "uci_concrete",
    "uci_naval",
    "uci_wine",
    "uci_yacht",
)
UCI_OF_THE_TABLES = UCI[:3]
LARGER = ("fashion_mnist", "cifar10", "penn_treebank")
REPETITIONS = {"uci": 200, "fashion_mnist": 100, "cifar10": 50, "penn_treebank": 50}

PLAIN = "random"  # plain training, to which costs are compared

# Methods that train on the training rows alone and are shown under their own names.
TRAINED = (
    PLAIN,
    "random_lr_schedule",
    "lorraine",
    "baydin",
    "ours_wd_lr",
    "ours_wd_lr_m",
    "ours_wd_hdlr_m",
    "diff_through_opt",
)

# Random (3-batched) is no method that can be run: it is the best of groups of three repetitions of
# `random_validation`, chosen by their validation loss. Where a store has the latter, figures and
# tables show the former.
GROUP_SOURCE = "random_validation"
GROUPED_NAME, GROUPED_LABEL = "random_3_batched", "Random (3-batched)"
GROUP_SIZE = 3

ONE_PASS = (*TRAINED, GROUP_SOURCE)
BUDGETED = (GROUP_SOURCE, "ours_wd_lr_m", "ours_wd_hdlr_m", "diff_through_opt")
SEARCHES = ("bayesopt", "asha_random", "asha_ours_wd_lr_m", "pbt_random", "pbt_ours_wd_lr_m")
MULTI_PASS = (*BUDGETED, *SEARCHES)  # compared at equal budgets

# An experiment of its own trains with larger validation parts than the usual one of each data set.
LARGER_VALIDATION_SHARES = (0.25, 0.375, 0.5)

# The paper's tables drop runs whose test loss is this high; of Penn Treebank, whose perplexity is
# above 1e5.
LOSS_LIMITS = {
    "fashion_mnist": 1e3,
    "fashion_mnist_batchnorm": 1e3,
    "penn_treebank": math.log(1e5),
}


def shown_name(method: str) -> str:
    """The id under which a method is shown: that of Random (3-batched) for its source."""
    return GROUPED_NAME if method == GROUP_SOURCE else method


def shown_label(method: str, label: str) -> str:
    """The label under which a method is shown: that of Random (3-batched) for its source."""
    return GROUPED_LABEL if method == GROUP_SOURCE else label
