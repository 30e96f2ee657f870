"""The ultimate optimizer (Chandra et al. 2022) against its authors' library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hpo_bench.core.loop import train
from hpo_bench.running.trainer import Trainer, pick_device
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import StartRanges
from tests.problems import in_force, make_settings, make_table
from tests.rules.test_rules import float64, needed

STEP = 0.01
UPDATES = 100


@dataclass(frozen=True)
class InTheirCoordinates:
    """Descent on the learning rate and the momentum themselves, as the library does it; ours
    moves raw values.
    """

    lr: float

    def init(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The raw values, which are followed."""
        return dict(raw)

    def update(
        self, hypergradients: Mapping[str, Tensor], memory: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The steps in raw space that the steps in natural space are."""
        hyper = in_force(memory)
        raw = {}
        for name, hypergradient in hypergradients.items():
            natural = hyper.natural[name] - self.lr * hypergradient / hyper.slope(name)
            raw[name] = natural.log10() if name == "lr" else torch.logit(natural)
        return {name: raw[name] - memory[name] for name in raw}, raw


@pytest.mark.filterwarnings("ignore:Using backward")
def test_hyperparameters_and_weights_are_the_librarys_over_100_updates(tmp_path: Path) -> None:
    """Without weight decay, which the library does not have; full batches, so that the second
    is the next one.
    """
    package = "gradient_descent_the_ultimate_optimizer"
    gdtuo = needed(f"{package}.gdtuo", package.replace("_", "-"))
    yaml = parse(compose(["method=ultimate", "dataset=diabetes"])).method
    assert yaml.tuned == ("lr", "momentum")
    method = replace(yaml, optimiser=InTheirCoordinates(STEP))
    start = StartRanges(None, (-2.0, -1.0), (-300.0, -299.0), (0.2, 0.8), (0.9, 1.0))
    table = make_table()
    settings = make_settings(
        tmp_path, method, table, start=start, hyperparameter_updates=UPDATES // 10
    )
    trainer = Trainer.of(settings, table, pick_device("cpu"))
    seeds = list(settings.seeds)
    begin = trainer.start(seeds)
    recorder = trainer.recorder(len(seeds))
    end = train(trainer.problem(seeds), trainer.plan, begin, recorder)
    rows, curves = trainer.rows[method.data_for_weights], recorder.curves()
    drawn = in_force(begin.raw)

    for row in range(len(seeds)):
        with float64():
            module = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 1))
            names = dict(zip(trainer.model.layout.names, module.state_dict(), strict=True))
            parts = trainer.model.layout.arrays(begin.weights[row : row + 1].numpy())
            module.load_state_dict(
                {names[key]: torch.from_numpy(value[0]) for key, value in parts.items()}
            )
            sgd = gdtuo.SGD(
                drawn["lr"][row].item(), drawn["momentum"][row].item(), optimizer=gdtuo.SGD(STEP)
            )
            tower = gdtuo.ModuleWrapper(module, optimizer=sgd)
            tower.initialize()
            for update in range(UPDATES):
                tower.begin()
                loss = ((tower.forward(rows.inputs) - rows.targets) ** 2).mean()
                tower.zero_grad()
                loss.backward(create_graph=True)
                tower.step()
                for name, theirs in (("lr", "alpha"), ("momentum", "mu")):
                    ours = curves[name][update, row]
                    assert ours == pytest.approx(sgd.parameters[theirs].item(), rel=1e-8), (
                        update,
                        name,
                    )
            weights = torch.cat([value.detach().flatten() for value in tower.parameters.values()])
        torch.testing.assert_close(end.state.weights[row], weights, rtol=1e-8, atol=1e-8)
        assert abs(curves["lr"][-1, row] / curves["lr"][0, row] - 1) > 1e-3, (
            "the learning rate was to move"
        )
