"""``hpo-bench bench``: measuring speed on this machine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from hpo_bench.cli.completion import scales

app = typer.Typer(invoke_without_command=True, help="Measure speed on this machine.")
SHORT_TRAINING = "hyperparameter_updates=3"
DATASETS = ["uci_energy", "uci_kin8nm", "fashion_mnist"]
PLAIN_DATASETS = ["uci_energy", "uci_kin8nm"]
METHODS = ("random", "ours_wd_lr_m", "diff_through_opt")
# Repetitions whose memory is looked at, and weight updates that are timed.
MEMORY_REPETITIONS = {"uci_energy": 400, "uci_kin8nm": 100, "fashion_mnist": 40}
UPDATES = {"uci_energy": 400, "uci_kin8nm": 100, "diabetes": 400, "fashion_mnist": 200}


@app.callback()
def bench(
    ctx: typer.Context,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Half the updates and fewer rounds: about three minutes."),
    ] = False,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="Datasets (default: uci_energy, uci_kin8nm, and fashion_mnist but for plain)."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the page to this Markdown file.")
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="sequential (a tight PyTorch loop), plain (methods beside plain training by the "
            "same weight update), or jax (vmap, scan and jit; needs hpo-bench[jax])."
        ),
    ] = "sequential",
) -> None:
    """Measure the engine against a tight sequential loop, side by side on one core.

    The page shows ratios, the roofline and peak memory.
    """
    if ctx.invoked_subcommand is not None:
        return
    from hpo_bench.errors import UserError

    ways = {"sequential": _against_sequential, "plain": _against_plain, "jax": _against_jax}
    if against not in ways:
        raise UserError(f"--against {against}: must be sequential, plain or jax")
    text = ways[against](dataset, quick)
    if out is not None:
        from hpo_bench.store.files import atomic

        with atomic(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(text)


def _against_jax(dataset: list[str] | None, quick: bool) -> str:
    """Measure against JAX; returns the page of `hpo_bench.bench.against_jax`."""
    from hpo_bench.bench import against_jax as jax

    jax.need_jax()
    import torch

    from hpo_bench.progress import Shown, default_reporter
    from hpo_bench.running.provenance import environment
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    names = dataset or DATASETS
    for name in names:
        parse(compose([f"dataset={name}"]))  # a wrong name is told before anything is measured
    cells = list(itertools.product(names, jax.variants(), jax.METHODS))
    results = []
    with Shown(default_reporter(), "bench", len(cells)) as reporter:
        for name, variant, method in cells:
            results.append(jax.against_jax(name, method, variant, quick=quick))
            reporter.advance(1)
    return jax.page(results, environment(torch.device("cpu"), 1), jax.versions())


def _against_plain(dataset: list[str] | None, quick: bool) -> str:
    """Measure methods in units of plain training; returns that page of
    `hpo_bench.bench.against_plain`.
    """
    import torch

    from hpo_bench.bench import against_plain as plain
    from hpo_bench.progress import Shown, default_reporter
    from hpo_bench.running.provenance import environment
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    settings = {}
    for name, method in itertools.product(dataset or PLAIN_DATASETS, plain.METHODS):
        settings[name, method] = parse(compose([f"dataset={name}", f"method={method}"]))
    names = list(dict.fromkeys(name for name, _ in settings))
    results = []
    with Shown(default_reporter(), "bench", len(names)) as reporter:
        for name in names:
            own = {method: settings[name, method] for method in plain.METHODS}
            updates = UPDATES.get(name, 100) // (2 if quick else 1)
            results.append(plain.method_times(own, updates=updates, rounds=3 if quick else 7))
            reporter.advance(1)
    return plain.page(results, environment(torch.device("cpu"), 1))


def _against_sequential(dataset: list[str] | None, quick: bool) -> str:
    """Measure against a sequential loop; returns the page of `hpo_bench.bench.page`."""
    import torch

    from hpo_bench.bench.compare import compare
    from hpo_bench.bench.cores import several_cores
    from hpo_bench.bench.machine import ceilings, peak_memory
    from hpo_bench.bench.memory_use import memory_use
    from hpo_bench.bench.page import page
    from hpo_bench.progress import Shown, default_reporter
    from hpo_bench.running.provenance import environment
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    names = dataset or DATASETS
    rounds = 3 if quick else 7
    updates = {name: UPDATES.get(name, 100) // (2 if quick else 1) for name in names}
    sizes = (1, 4, 16, 64) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
    settings = {}
    for name, method in itertools.product(names, METHODS):
        settings[name, method] = parse(compose([f"dataset={name}", f"method={method}"]))
    measurements = len(settings) + len(sizes) + 2 * len(names)
    with Shown(default_reporter(), "bench", measurements) as reporter:
        comparisons, scaling = [], []
        for (name, _), one in settings.items():
            comparisons.append(compare(one, updates=updates[name], rounds=rounds))
            reporter.advance(1)
        first = settings[names[0], "ours_wd_lr_m"]
        for rows in sizes:
            scaling.append(compare(first, updates=updates[names[0]] // 2, rounds=3, rows=rows))
            reporter.advance(1)
        together, memory = [], []
        for name in names:
            one = settings[name, "ours_wd_lr_m"]
            together.append(several_cores(one, updates=updates[name], rounds=min(rounds, 3)))
            reporter.advance(1)
            overrides = [f"dataset={name}", "method=ours_wd_lr_m", SHORT_TRAINING]
            memory.append(memory_use(overrides, MEMORY_REPETITIONS.get(name, 50)))
            reporter.advance(1)
        machine = environment(torch.device("cpu"), 1)
        torch.set_num_threads(1)
        return page(
            comparisons, scaling, ceilings(), peak_memory(), machine, updates, together, memory
        )


@app.command()
def runtime(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[OVERRIDE]...")] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Datasets (default: uci_energy).")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Methods (default: random, ours_wd_lr_m, …).")
    ] = None,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Blocks of one repetition for each method.")
    ] = 8,
    results: Annotated[
        Path, typer.Option(help="Results folder; the runs go to its folder 'runtime'.")
    ] = Path("results"),
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            help="Of the experiment that is called like the dataset: smoke, small, cpu or paper.",
            autocompletion=scales,
        ),
    ] = "paper",
) -> None:
    """Train one repetition per block, with and without test evaluation: the runs of Figure 14."""
    from hpo_bench.bench.runtime import plan
    from hpo_bench.cli.closing import print_closing
    from hpo_bench.progress import default_reporter
    from hpo_bench.running.execute import execute

    methods = method or [
        "random",
        "lorraine",
        "baydin",
        "ours_wd_lr",
        "ours_wd_lr_m",
        "ours_wd_hdlr_m",
        "diff_through_opt",
    ]
    datasets = dataset or ["uci_energy"]
    plans = list(plan(datasets, methods, repetitions, results, overrides or [], scale))
    for settings in plans:
        print_closing(execute(settings, default_reporter()).run)


@app.command()
def overhead() -> None:
    """Measure the runner's own cost for a repetition.

    It plans and stores 14 400 repetitions with whole curves (2 GB in a temporary folder).
    """
    from hpo_bench.bench.overhead import overhead as measure

    cost = measure()
    print(
        f"{cost.repetitions} repetitions: {cost.total:.2f} ms each "
        f"(planning {cost.planning:.2f}, writing {cost.writing:.2f}, "
        f"indexing {cost.indexing:.3f}), {cost.cpu:.2f} ms of processor time; "
        f"all stored is found in {cost.resume:.1f} s"
    )
