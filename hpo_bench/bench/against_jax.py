"""Engine against a program in JAX (`hpo_bench.bench.jax_program`), in turns on one core.

What is timed is the processor's time of the whole process, which does nothing else: on a core of
its own that is wall time, and on a machine that others use, too, it does not count their part. A
process of its own, because one core and one thread are what XLA must find when it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpo_bench.core import native
from hpo_bench.errors import RunError, UserError

if TYPE_CHECKING:
    from hpo_bench.running.trainer import Trainer

METHODS = ("random", "ours_wd_lr_m")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
ISAS = {
    "x86-64-v4": "AVX512",
    "x86-64-v3": "AVX2",
}  # what XLA may use beside each variant of our kernels
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
FEW_ROWS = (1, 4, 16, 64)
UPDATES = {"uci_energy": 400, "uci_kin8nm": 100, "diabetes": 400, "fashion_mnist": 1000}
LEFT_OUT = 1 << 40  # recorded never: the start and the end are, on the few test rows that are left
FEW_TEST_ROWS = 16


@dataclass(frozen=True)
class Versus:
    """Microseconds per weight update and repetition, round by round in turns.

    Args:
        variant: of our kernels; what XLA compiles may use the same instructions.
        evaluated: whether the test loss is computed before every update.
        engine_rows, jax_rows: repetitions at once, where each is fastest.
    """

    dataset: str
    method: str
    variant: str
    evaluated: bool
    engine_rows: int
    jax_rows: int
    engine: tuple[float, ...]
    jax: tuple[float, ...]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Times of JAX over those of the engine, round by round, (rounds,)."""
        return np.asarray(np.array(self.jax) / np.array(self.engine))


def need_jax() -> None:
    """Stop where JAX is not installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("jax") is None:
        raise UserError("--against jax: JAX is not installed; pip install 'hpo-bench[jax]'")


def variants() -> tuple[str, ...]:
    """Instruction sets to be compared: those of our kernels that this processor can run, or
    ``torch`` without any.
    """
    found = [
        name for name in native.variants() if name in ISAS and native.load(name).library is not None
    ]
    return tuple(found) or ("torch",)


def against_jax(dataset: str, method: str, variant: str, *, quick: bool) -> Versus:
    """Compare in a new process that has one core.

    Raises:
        RunError: it failed.
    """
    isa = f" --xla_cpu_max_isa={ISAS[variant]}" if variant in ISAS else ""
    environment = {
        **os.environ,
        "XLA_FLAGS": ONE_THREAD + isa,
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "HPO_BENCH_NATIVE": variant if variant in ISAS else "0",
    }
    command = [
        sys.executable,
        "-m",
        __name__,
        dataset,
        method,
        variant,
        "quick" if quick else "whole",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunError(f"--against jax: {dataset} {method}: {done.stderr.strip().splitlines()[-1]}")
    values = json.loads(done.stdout.splitlines()[-1])
    return Versus(**{**values, "engine": tuple(values["engine"]), "jax": tuple(values["jax"])})


def trainer_of(dataset: str, method: str, updates: int) -> Trainer:
    """The engine's side; with minibatches evaluation is left out, which would be most of the
    time.
    """
    from hpo_bench.running.trainer import Trainer
    from hpo_bench.settings.compose import compose
    from hpo_bench.settings.parse import parse

    settings = parse(compose([f"dataset={dataset}", f"method={method}"]))
    evaluated = settings.batch_size is None
    settings = replace(
        settings,
        hyperparameter_updates=updates // settings.update_interval,
        workers=1,
        device="cpu",
        checkpoint_every=None,
        record_every=1 if evaluated else LEFT_OUT,
    )
    trainer = Trainer.of(
        settings, settings.source.load(settings.validation_share), torch.device("cpu")
    )
    if evaluated:
        return trainer
    test = trainer.rows["test"]
    few = replace(test, inputs=test.inputs[:FEW_TEST_ROWS], targets=test.targets[:FEW_TEST_ROWS])
    return replace(trainer, rows={**trainer.rows, "test": few})


@dataclass(frozen=True)
class JaxRun:
    """What `jax_program` makes of the same repetitions: the compiled program and its arguments."""

    program: Callable[..., Any]
    arguments: tuple[Any, ...]

    @staticmethod
    def of(trainer: Trainer, rows: int) -> JaxRun:
        """For the first ``rows`` repetitions, from the same starts and on the same batches."""
        import jax
        import jax.numpy as jnp

        from hpo_bench.bench.jax_program import Data, training
        from hpo_bench.hypergradients.neumann import Neumann

        settings, plan = trainer.settings, trainer.plan
        seeds = range(settings.seed, settings.seed + rows)
        start = trainer.start(seeds)
        estimator = plan.estimator
        assert estimator is None or isinstance(estimator, Neumann)

        def part(name: str) -> tuple[Any, Any]:
            return jnp.asarray(trainer.rows[name].inputs.numpy()), jnp.asarray(
                trainer.rows[name].targets.numpy()
            )

        evaluated = settings.record_every == 1
        data = Data(
            part(settings.method.data_for_weights),
            part("validation"),
            part("test") if evaluated else None,
        )
        one = training(trainer.table.task, data, None if estimator is None else estimator.look_back)
        problem, updates = trainer.problem(seeds), settings.weight_updates
        places = _places(problem.training, updates, settings.update_interval, rows)
        second = (
            places[..., :0]
            if problem.second is None
            else _places(problem.second, updates, settings.update_interval, rows)
        )
        weights = {
            name: jnp.asarray(view.numpy())
            for name, view in trainer.model.layout.views(start.weights).items()
        }
        raw = {name: jnp.asarray(value[:, 0].numpy()) for name, value in start.raw.items()}
        return JaxRun(
            jax.jit(jax.vmap(one)), (weights, raw, jnp.asarray(places), jnp.asarray(second))
        )

    def __call__(self) -> Any:
        """Train; waits for the end."""
        import jax

        wait: Callable[[Any], Any] = jax.block_until_ready
        return wait(self.program(*self.arguments))


def _places(stream: Any, updates: int, interval: int, rows: int) -> np.ndarray:
    """Row numbers of the batches, (R, K, T, B), or (R, K, T, 0) where every batch is the whole
    set.
    """
    shape = (rows, updates // interval, interval)
    if stream.per_pass == 1:
        return np.zeros((*shape, 0), np.int32)
    chosen = np.stack([stream.places(number).numpy() for number in range(updates)], axis=1)
    return chosen.astype(np.int32).reshape(*shape, -1)


def measure(dataset: str, method: str, variant: str, quick: bool) -> Versus:
    """In this process; see `against_jax`."""
    updates = UPDATES.get(dataset, 100)
    updates, candidates = (updates // 2, FEW_ROWS) if quick else (updates, ROWS)
    trainer = trainer_of(dataset, method, updates)
    first = trainer_of(
        dataset, method, max(updates // 5, 20)
    )  # long enough to find the best number of rows

    def engine(one: Trainer, rows: int) -> Callable[[], object]:
        return lambda: one.block(range(one.settings.seed, one.settings.seed + rows))

    def fastest(work: Callable[[Trainer, int], Callable[[], object]]) -> int:
        best, found = float("inf"), candidates[0]
        for rows in candidates:
            taken = work(first, rows)
            taken()
            seconds = min(_seconds(taken) for _ in range(2)) / rows
            if seconds > 1.3 * best:
                break
            if seconds < best:
                best, found = seconds, rows
        return found

    engine_rows, jax_rows = fastest(engine), fastest(JaxRun.of)
    ours, theirs = engine(trainer, engine_rows), JaxRun.of(trainer, jax_rows)
    ours(), theirs()
    pairs = [
        (_seconds(ours) / engine_rows, _seconds(theirs) / jax_rows)
        for _ in range(3 if quick else 7)
    ]
    fast, slow = (tuple(1e6 * pair[side] / updates for pair in pairs) for side in (0, 1))
    return Versus(
        dataset,
        method,
        variant,
        trainer.settings.record_every == 1,
        engine_rows,
        jax_rows,
        fast,
        slow,
    )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def page(
    found: Sequence[Versus], environment: Mapping[str, object], versions: Mapping[str, str]
) -> str:
    """The page as Markdown."""
    import datetime

    parts = [
        f"{key} {value}" for key, value in environment.items() if key not in ("threads", "workers")
    ]
    parts += [f"{name} {version}" for name, version in versions.items()]
    today = datetime.date.today().isoformat()
    columns = ("dataset", "method", "instructions", "rows: engine, jax")
    times = ("engine, µs", "jax, µs", "jax ÷ engine")
    lines = [
        f"Measured {today} on one core with one thread: {', '.join(parts)}.",
        "",
        "Microseconds of processor time per weight update and repetition. *jax* is the same "
        "training written with `vmap`, `scan` and `jit` (`hpo_bench/bench/jax_program.py`; "
        "compiling is not counted), *engine* this package; each trains as many rows at once as "
        "suit it best. Where all rows make a batch both compute the test loss before every "
        "update; with minibatches neither does. The third column is the variant of our kernels; "
        "what XLA compiles is held to the same instructions by `--xla_cpu_max_isa`, the libraries "
        "in it choose for themselves. Taken in turns, ratios formed round by round: median "
        "(lowest to highest).",
        "",
        f"| {' | '.join((*columns, *times))} |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        ratios = one.ratios
        lines.append(
            f"| {one.dataset} | {one.method} | {one.variant} | {one.engine_rows}, {one.jax_rows} | "
            f"{np.median(one.engine):.1f} | {np.median(one.jax):.1f} | "
            f"**{np.median(ratios):.1f}** ({ratios.min():.1f} to {ratios.max():.1f}) |"
        )
    return "\n".join([*lines, "", *_against_random(found), ""])


def _against_random(found: Sequence[Versus]) -> list[str]:
    """The engine's other methods in units of Random."""
    lines = []
    for dataset, variant in dict.fromkeys((one.dataset, one.variant) for one in found):
        times = {
            one.method: np.median(one.engine)
            for one in found
            if (one.dataset, one.variant) == (dataset, variant)
        }
        for method, value in times.items():
            if method != "random" and "random" in times:
                ratio = value / times["random"]
                lines.append(f"{dataset}, {variant}: engine, {method} takes {ratio:.2f} × random.")
    return lines


def versions() -> dict[str, str]:
    """Of what is compared."""
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "jaxlib")}


def _main(dataset: str, method: str, variant: str, length: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    print(json.dumps(asdict(measure(dataset, method, variant, length == "quick"))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
