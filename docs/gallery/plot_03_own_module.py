"""
A module of your own, in a loop of your own
===========================================

``OnePass`` takes the place of the optimiser in a training loop: any module, any loss that can be
differentiated twice. Here a small convolutional network learns to read digits, from a learning rate
that is a hundred times too small.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

from hpo_bench import OnePass

torch.set_num_threads(1)  # so small a network is slower with more
digits = load_digits()
images = torch.tensor(digits.images / 16).float().unsqueeze(1)
labels = torch.tensor(digits.target)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
training, validation, test = order.split([1100, 300, 397])


def network() -> torch.nn.Module:
    """A convolution, a hidden layer, ten classes."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 10),
    )


def loss(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of some rows of the data."""
    return cross_entropy(model(images[rows]), labels[rows])


# %%
# ``step`` makes one weight update; ``due`` is true after every ten of them; ``tune`` then makes one
# update of the hyperparameters, by a hypergradient on validation rows.


def trained(tunes: bool) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    """The network after 800 weight updates, and its hyperparameters meanwhile."""
    model = network()
    tuner = OnePass(model, loss, lr=1e-3, momentum=0.5)
    draws = torch.Generator().manual_seed(1)
    shown = []
    for _ in range(800):
        tuner.step(training[torch.randint(len(training), (100,), generator=draws)])
        if tunes and tuner.due:
            tuner.tune(validation)
        shown.append({name: float(value) for name, value in tuner.hyperparameters.items()})
    return model, shown


wrong = {}
for name, tunes in (("as it was", False), ("tuned", True)):
    model, shown = trained(tunes)
    with torch.no_grad():
        wrong[name] = float((model(images[test]).argmax(-1) != labels[test]).float().mean())
wrong

# %%
# The share of test images that are read wrongly fell, because the learning rate rose:

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.semilogy([each["lr"] for each in shown], label="learning rate")
axes.semilogy([each["momentum"] for each in shown], label="momentum")
axes.semilogy([each["weight_decay"] for each in shown], label="weight decay")
axes.set(xlabel="Weight update", ylabel="Hyperparameter")
axes.legend()
