"""From settings to stored results: plan blocks of repetitions, train them side by side, commit them as one run."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from hpo_bench import __version__, counting, native, tracking
from hpo_bench.checkpoint import Checkpoint, Checkpoints
from hpo_bench.core import memory, start
from hpo_bench.core.batches import Rows, Stream, inputs_on
from hpo_bench.core.loop import MOMENTUM_SGD, Plan, Problem, Snapshot, beginning, train
from hpo_bench.core.loop import Start as StartTensors
from hpo_bench.core.recorder import QUANTILES, Recorder, recorded_steps
from hpo_bench.datasets.base import Table
from hpo_bench.errors import RunError, UserError
from hpo_bench.hypergradients.base import Costs, Estimator, chosen
from hpo_bench.models.base import Model
from hpo_bench.progress import Reporter, Shown, Silent
from hpo_bench.search.base import chunk_of
from hpo_bench.settings import HYPERPARAMETERS, Settings
from hpo_bench.store import CURVE_COLUMNS, FINAL_COLUMNS, Block, Run, Writer

NUMBERS = 2  # raised by every change that moves a result (CHANGELOG, "Numbers"): part of each run's hash
PRESENTATION = {"label", "colour", "line_style", "order"}
PLACE = {"results_dir", "device", "chunk", "workers", "tracker", "checkpoint_every", "seed", "repetitions"}
KEYS, KEY_BYTES = ("seed", "step", "elapsed_s"), 20  # columns that are made for the table alone, and their size a row
PER_WEIGHT_VECTORS = 16  # of P numbers, for a hyperparameter with one value per weight and its optimiser
MANY_THREADS_BYTES = 64 << 20  # activations of a block from which one block is worth all cores


@dataclass(frozen=True)
class Outcome:
    """What a call of `execute` did: the stored run, and how many repetitions were computed in this call."""

    run: Run
    computed: int


def execute(settings: Settings, reporter: Reporter | None = None, pool: Pool | None = None) -> Outcome:
    """Make sure that a run is stored: nothing to do where it is, only the rest where it was interrupted.

    Args:
        pool: where its blocks are computed; threads of this process unless given.

    Raises:
        UserError: the settings do not fit each other, the data, or the device.
        RunError: the run had begun and failed; what was finished is kept.
    """
    reporter, pool = reporter or Silent(), pool or Threads()
    tracking.check(settings.tracker)
    device = pick_device(settings.device)
    table = settings.source.load(settings.validation_share)
    name, config_hash = identify(settings, table)
    with Writer(settings.results_dir, name, force=settings.force) as writer:
        run = writer.complete()
        if run is not None:
            writer.drop_blocks()
            reporter.say(f"{name}: already complete, nothing to compute (--force computes it again)")
            return Outcome(run, 0)
        trainer = Trainer.of(settings, table, device)
        if settings.checkpoint_every is not None:
            trainer = replace(trainer, checkpoints=Checkpoints(writer.blocks, settings.checkpoint_every))
        finished = writer.finished_seeds()
        missing = [seed for seed in settings.seeds if seed not in finished]
        chunk = trainer.chunk(len(missing))
        document = describe(trainer, config_hash, chunk)
        blocks, begun = _blocks(trainer, missing, chunk.rows)
        if blocks:
            reporter.say(f"{name}: {_plan_line(chunk, len(missing), len(blocks), device, len(finished), begun)}")
            if trainer.why is not None:
                reporter.say(f"{name}: hypergradients in {trainer.why}")
        updates = settings.total_updates
        label = f"{settings.method.name} on {settings.dataset}"
        try:
            with (
                Shown(reporter, label, settings.repetitions * updates, len(finished) * updates),
                tracking.Tracked(settings, name, reporter) as tracked,
            ):
                for block in pool.run(trainer, blocks, chunk.workers, reporter):
                    writer.write_block(block)
                    if trainer.checkpoints is not None:
                        trainer.checkpoints.of(block.seeds).drop()
                    tracked.finished(block)
                run = writer.commit(settings.seeds, document)
                tracked.complete(run)
        except (RunError, UserError):
            raise
        except (RuntimeError, MemoryError) as error:
            text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            writer.fail(settings.seeds, document, text)
            raise RunError(f"{name} failed: {text}; finished blocks are kept, a smaller chunk= may help") from error
        return Outcome(run, len(missing))


def _blocks(trainer: Trainer, missing: Sequence[int], rows: int) -> tuple[list[Sequence[int]], int]:
    """Seeds of each block, those with a checkpoint first, and how many these are."""
    begun: list[Sequence[int]] = []
    if trainer.checkpoints is not None:
        begun += trainer.checkpoints.begun(missing, trainer.settings.chunk)
    known = {seed for seeds in begun for seed in seeds}
    rest = [seed for seed in missing if seed not in known]
    return [*begun, *(rest[at : at + rows] for at in range(0, len(rest), rows))], len(begun)


def _plan_line(
    chunk: memory.Chunk, missing: int, blocks: int, device: torch.device, finished: int, begun: int = 0
) -> str:
    size = f"{chunk.bytes / 2**20:.0f} MiB" if chunk.bytes < memory.GIB else f"{chunk.bytes / memory.GIB:.1f} GiB"
    text = (
        f"{missing} repetition{'s' * (missing > 1)} on {device} in {blocks} block{'s' * (blocks > 1)} "
        f"of up to {chunk.rows} ({chunk.reason}), {chunk.workers} at a time, about {size}"
    )
    text += f"; {finished} finished earlier" * bool(finished)
    return text + f"; {begun} go{'es' * (begun == 1)} on from a checkpoint" * bool(begun)


def describe(trainer: Trainer, config_hash: str, chunk: memory.Chunk) -> dict[str, Any]:
    """What ``run.json`` says beside status, seconds and seeds."""
    return {
        "config": _as_found(trainer.settings.config, trainer.table), "config_hash": config_hash,
        "code": code_version(), "environment": environment(trainer.device, chunk.workers), "chunk": chunk.rows,
        "hypergradients": trainer.why, "costs": costs(trainer),
    }  # fmt: skip


def costs(trainer: Trainer) -> dict[str, int] | None:
    """Weight updates, gradients and Hessian-vector products of one repetition; None for a search, whose trials tell."""
    settings = trainer.settings
    if settings.method.search is not None:
        return None
    estimator, _ = _chosen(settings, trainer.model, len(trainer.rows[settings.method.data_for_weights]))
    own = replace(trainer, plan=replace(trainer.plan, estimator=estimator))
    return counting.work(own).of(settings.weight_updates)


class Pool(Protocol):
    """Where blocks are computed: threads of this process, or other machines."""

    def run(
        self, trainer: Trainer, blocks: Sequence[Sequence[int]], workers: int, reporter: Reporter
    ) -> Iterator[Block]:
        """Compute the blocks (seeds each), up to ``workers`` side by side, and yield each when it is finished.

        `Trainer.block` computes one; units of progress are weight updates of one repetition.
        """
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process: torch leaves the interpreter while it works, so they share nothing but the data."""

    def run(
        self, trainer: Trainer, blocks: Sequence[Sequence[int]], workers: int, reporter: Reporter
    ) -> Iterator[Block]:
        """See `Pool.run`; a block that fails stops the others at their next hyperparameter update.

        A block for which there is not enough memory is computed in halves.
        """
        stop = threading.Event()
        threads = torch.get_num_threads()

        def attempt(seeds: Sequence[int]) -> Block:
            done = 0

            def on_progress(count: int) -> None:
                nonlocal done
                done += count * len(seeds)
                reporter.advance(count * len(seeds))
                if stop.is_set():
                    raise Stopped

            try:
                return trainer.block(seeds, on_progress)
            except (MemoryError, RuntimeError):
                reporter.advance(-done)
                raise

        def work(seeds: Sequence[int]) -> list[Block]:
            torch.set_num_threads(trainer.threads(len(seeds), workers))
            try:
                return [attempt(seeds)]
            except (MemoryError, RuntimeError) as error:
                if len(seeds) == 1 or not memory.is_exhausted(error):
                    raise
            half = -(-len(seeds) // 2)
            reporter.say(f"not enough memory for {len(seeds)} repetitions at once: going on with {half}")
            memory.give_back(trainer.device)
            return [*work(seeds[:half]), *work(seeds[half:])]

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            futures = [pool.submit(work, seeds) for seeds in blocks]
            try:
                for future in as_completed(futures):
                    yield from future.result()
            finally:
                stop.set()
                for future in futures:
                    future.cancel()
                torch.set_num_threads(threads)


class Stopped(Exception):
    """Another block failed, or the user pressed Ctrl-C."""


@dataclass(frozen=True)
class Trainer:
    """One run's dataset, model and plan, ready to train any of its repetitions.

    Args:
        why: its estimator was chosen.
        checkpoints: where blocks leave theirs, or None.
    """

    settings: Settings
    table: Table
    model: Model
    plan: Plan
    rows: Mapping[str, Rows]
    dtype: torch.dtype
    device: torch.device
    why: str | None = None
    checkpoints: Checkpoints | None = None

    @staticmethod
    def of(settings: Settings, table: Table, device: torch.device) -> Trainer:
        """Check what needs the data or the estimator, and move the data to the device.

        Raises:
            UserError: a combination that cannot work.
        """
        dtype = getattr(torch, settings.precision)
        method = settings.method
        if method.search is not None:
            method.search.check(settings)
        if method.estimator is not None:
            wrong = [name for name in method.tuned if name not in method.estimator.tunes]
            if wrong:
                raise UserError(
                    f"tuned={list(method.tuned)}: method={method.name} cannot tune {wrong[0]}; "
                    f"allowed: {', '.join(method.estimator.tunes)}"
                )
        model, rows = settings.model.build(table, dtype, device), _rows(table, dtype, device)
        estimator, why = _chosen(settings, model, len(rows[method.data_for_weights]))
        plan = Plan(
            estimator, method.optimiser, method.tuned, settings.update_interval, settings.weight_updates,
            settings.clip_log10_lr, method.reset_weights, method.rule or MOMENTUM_SGD,
        )  # fmt: skip
        return Trainer(settings, table, model, plan, rows, dtype, device, why)

    @property
    def _training(self) -> Rows:
        return self.rows[self.settings.method.data_for_weights]

    def _second(self) -> tuple[Rows, str] | None:
        """Rows and stream name of the second batches: see `hpo_bench.hypergradients.base.Estimator.second_batch`."""
        method = self.settings.method
        split = method.data_for_weights == "train"
        if method.full_validation:
            return None
        if method.estimator is None:
            return (self.rows["validation"], "validation") if split else None
        if method.estimator.second_batch == "validation" or split:
            return self.rows["validation"], "validation"
        return replace(self._training, split="validation"), "second"  # with carried states of its own

    def problem(self, seeds: Sequence[int]) -> Problem:
        """Streams of some repetitions."""
        settings = self.settings

        def stream(rows: Rows, name: str) -> Stream:
            return Stream(
                rows, self.model, settings.batch_size, shuffled=settings.data_order == "shuffled",
                dataset=settings.dataset, name=name, seeds=seeds,
            )  # fmt: skip

        second = self._second()
        return Problem(
            self.model,
            stream(self._training, "training"),
            stream(*second) if second is not None else None,
            self.rows["test"].batch(self.model),
            self.rows["validation"].batch(self.model) if settings.method.full_validation else None,
            settings.gradient_clip_norm,
        )

    def start(self, seeds: Sequence[int]) -> StartTensors:
        """Initial weights and hyperparameters of some repetitions."""
        settings = self.settings
        if settings.start.file is not None:
            values = start.read(settings.start.file, [seed - settings.seed for seed in seeds], self.model)
        else:
            values = start.draw(seeds, settings.dataset, self.model, settings.start)
        return start.to_device(values, settings.method, torch.empty(0, dtype=self.dtype, device=self.device))

    def _batch_rows(self) -> int:
        return min(self.settings.batch_size or len(self._training), len(self._training))

    def chunk(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` to compute at once."""
        search = self.settings.method.search
        return self.rows_at_once(repetitions) if search is None else chunk_of(search, self, repetitions)

    def rows_at_once(self, repetitions: int) -> memory.Chunk:
        """How many of ``repetitions`` trainings to make at once."""
        settings, working_set = self.settings, self.model.working_set(self._batch_rows())
        return memory.choose(repetitions, self.need(), working_set, self.device, settings.chunk, settings.workers)

    def need(self) -> int:
        """Bytes that one repetition needs: linearisations, evaluation, and the record with the table made of it."""
        columns = len(CURVE_COLUMNS) - len(KEYS) + (len(QUANTILES) if self.settings.method.per_weight else 0)
        steps = len(recorded_steps(self.settings.weight_updates, self.settings.record_every))
        record = (
            steps * (2 * columns * self.dtype.itemsize + KEY_BYTES) + self.settings.weight_updates * self.dtype.itemsize
        )
        seen = max(len(self.rows[name]) for name in ("test", "validation"))
        batch = max(self._batch_rows(), min(self.settings.batch_size or seen, len(self.rows["validation"])))
        per_weight = PER_WEIGHT_VECTORS * len(self.settings.method.per_weight) * self.model.layout.count
        activations = self.model.row_bytes(batch, self.plan.kept) + self.model.evaluation_bytes(seen)
        return activations + per_weight * self.dtype.itemsize + record + self._orders()

    def _orders(self) -> int:
        """Bytes of the order of one repetition's rows in each stream."""
        if self.settings.batch_size is None or self.settings.data_order != "shuffled":
            return 0
        second = self._second()
        return 8 * (len(self._training) + (len(second[0]) if second is not None else 0))

    def threads(self, rows: int, workers: int) -> int:
        """Threads of torch for one block: one, unless the block is alone and large."""
        large = workers == 1 and rows * self.model.working_set(self._batch_rows()) >= MANY_THREADS_BYTES
        return memory.cores() if large else 1

    def recorder(self, rows: int) -> Recorder:
        """For a training of some repetitions."""
        settings = self.settings
        kept = settings.weight_updates // self.plan.interval if settings.save_hypergradients else 0
        per_weight = "lr" in settings.method.per_weight
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return Recorder(rows, settings.weight_updates, settings.record_every, per_weight, like, kept)

    def block(self, seeds: Sequence[int], on_progress: Callable[[int], None] = lambda updates: None) -> Block:
        """Train some repetitions as one tensor program, from their checkpoint if there is one; or search for each."""
        if self.settings.method.search is not None:
            return self.settings.method.search.block(self, seeds, on_progress)
        recorder = self.recorder(len(seeds))
        problem, first = self.problem(seeds), self.start(seeds)
        checkpoint = None if self.checkpoints is None else self.checkpoints.of(seeds)
        snapshot = None
        if checkpoint is not None:
            snapshot = checkpoint.load(beginning(problem, self.plan, first), recorder)
        if snapshot is not None:
            on_progress(snapshot.number)
        end = train(
            problem, self.plan, first, recorder, snapshot=snapshot,
            on_interval=_saving(checkpoint, recorder, self.plan.update_interval, on_progress),
        )  # fmt: skip
        curves, diverged_at, seconds = recorder.curves(), recorder.diverged_at(), recorder.seconds
        tables = {
            "final": final_table(seeds, first, recorder.steps, curves, diverged_at, seconds / len(seeds)),
            "curves": curves_table(seeds, recorder.steps, curves, diverged_at, recorder.elapsed),
        }
        if self.settings.save_hypergradients:
            tables["hypergradients"] = hypergradients_table(seeds, recorder.hypergradients())
        weights = {}
        if self.settings.save_weights:
            arrays = self.model.layout.arrays(self.plan.rule.evaluated(end.state).cpu().numpy())
            weights = {f"wT/{name}": array for name, array in arrays.items()}
        evaluate = recorder.evaluate_seconds
        return Block(
            tuple(seeds), tables, weights, {"train": seconds - evaluate, "evaluate": evaluate, "total": seconds}
        )


def _saving(
    checkpoint: Checkpoint | None, recorder: Recorder, interval: int, on_progress: Callable[[int], None]
) -> Callable[[Snapshot], None]:
    """What is done after every T weight updates: tell of it, and write the checkpoint if it is time, or the end."""

    def on_interval(snapshot: Snapshot) -> None:
        try:
            on_progress(interval)
        except Stopped:
            if checkpoint is not None:
                checkpoint.save(snapshot, recorder)
            raise
        if checkpoint is not None and checkpoint.due():
            checkpoint.save(snapshot, recorder)

    return on_interval


def _chosen(settings: Settings, model: Model, training: int) -> tuple[Estimator | None, str | None]:
    """The method's estimator, or the one that it chooses for this model and ``training`` rows, and why."""
    method = settings.method
    if method.estimator is None:
        return None, None
    batch = min(settings.batch_size or training, training)
    per_weight = tuple(name for name in method.per_weight if name in method.tuned)
    costs = Costs(settings.update_interval, lambda kept: model.row_bytes(batch, kept), per_weight)
    return chosen(method.estimator, costs)


def _rows(table: Table, dtype: torch.dtype, device: torch.device) -> dict[str, Rows]:
    """Parts of a dataset on the device; those that train the weights by the names of ``data_for_weights``."""
    inputs = inputs_on(table, dtype, device)
    targets = torch.from_numpy(table.targets).to(device=device)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    both = table.training + table.validation

    def part(begin: int, end: int, split: Any) -> Rows:
        return Rows(inputs[begin:end], targets[begin:end], split)

    return {
        "train": part(0, table.training, "training"),
        "train_and_validation": part(0, both, "training"),
        "validation": part(table.training, both, "validation"),
        "test": part(both, both + table.test, "test"),
    }


def _nullable(values: np.ndarray | None, missing: np.ndarray | None, count: int, kind: pa.DataType) -> pa.Array:
    """Arrow array with nulls where ``missing``, or all null where there are no values."""
    return pa.nulls(count, kind) if values is None else pa.array(values, kind, mask=missing)


def final_table(
    seeds: Sequence[int], first: StartTensors, steps: Sequence[int], curves: Mapping[str, np.ndarray],
    diverged_at: np.ndarray, seconds: float,
) -> pa.Table:  # fmt: skip
    """One row per repetition: contract's ``final.parquet``."""
    from hpo_bench.core.hyperparameters import Hyperparameters

    count = len(seeds)
    initial = Hyperparameters.of(first.raw).natural
    values: dict[str, pa.Array] = {
        "seed": pa.array(list(seeds), pa.int64()),
        "status": pa.array(["ok" if at < 0 else "diverged" for at in diverged_at]),
        "diverged_at": _nullable(diverged_at, diverged_at < 0, count, pa.int64()),
        "seconds": pa.array(np.full(count, seconds)),
        "rows_in_block": pa.array(np.full(count, count), pa.int64()),
    }
    for name in HYPERPARAMETERS:
        values[f"initial_{name}"] = pa.array(initial[name][:, 0].double().cpu().numpy())
    for name in ("train_loss", "validation_loss", "test_loss", "test_metric", *HYPERPARAMETERS):
        column = curves.get(name)
        values[name] = _nullable(None if column is None else column[-1].astype(np.float64), None, count, pa.float64())
    best, unknown = _best_validation(curves.get("validation_loss"), diverged_at, steps)
    values["best_validation_step"] = _nullable(np.asarray(steps)[best], unknown, count, pa.int64())
    at_best = curves["test_metric"][best, np.arange(count)].astype(np.float64)
    values["test_metric_at_best_validation"] = _nullable(at_best, unknown, count, pa.float64())
    return pa.table({name: values[name] for name in FINAL_COLUMNS})


def _best_validation(
    validation: np.ndarray | None, diverged_at: np.ndarray, steps: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the recorded step with the least validation loss before any divergence, and where there is none."""
    if validation is None:
        return np.zeros(len(diverged_at), int), np.ones(len(diverged_at), bool)
    after = (diverged_at >= 0) & (np.asarray(steps)[:, None] >= diverged_at)
    usable = np.where(np.isfinite(validation) & ~after, validation, np.inf)
    return usable.argmin(axis=0), np.asarray(np.isinf(usable).all(axis=0))


def curves_table(
    seeds: Sequence[int], steps: Sequence[int], curves: Mapping[str, np.ndarray], diverged_at: np.ndarray,
    elapsed: np.ndarray,
) -> pa.Table:  # fmt: skip
    """One row per repetition and recorded step, up to the step at which a repetition diverged: ``curves.parquet``."""
    at = np.asarray(steps)
    keep = ((diverged_at[:, None] < 0) | (at[None, :] <= diverged_at[:, None])).ravel()
    count = int(keep.sum())

    def rows(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (len(seeds), len(at))).ravel()[keep]

    dtype = pa.from_numpy_dtype(curves["train_loss"].dtype)
    columns: dict[str, pa.Array] = {}
    for name in (*CURVE_COLUMNS, *(name for name in QUANTILES if name in curves)):
        if name == "seed":
            columns[name] = pa.array(rows(np.asarray(seeds)[:, None]), pa.int64())
        elif name == "step":
            columns[name] = pa.array(rows(at[None, :]), pa.int64())
        elif name == "elapsed_s":
            columns[name] = pa.array(rows(elapsed[None, :]), pa.float32())
        else:
            column = curves.get(name)
            columns[name] = _nullable(None if column is None else rows(column.T), None, count, dtype)
    return pa.table(columns)


def hypergradients_table(seeds: Sequence[int], kept: Mapping[str, np.ndarray]) -> pa.Table:
    """One row per repetition and hyperparameter update, raw space.

    Per-weight hyperparameters: the sum of the hypergradients (that of a common shift) and the mean step.

    Args:
        kept: see `Recorder.hypergradients`.
    """
    updates = max((len(values) for values in kept.values()), default=0)
    columns: dict[str, pa.Array] = {
        "seed": pa.array(np.repeat(np.asarray(seeds, np.int64), updates)),
        "hyper_step": pa.array(np.tile(np.arange(updates), len(seeds))),
    }
    for name, values in kept.items():
        for index, kind in enumerate(("hypergradient", "step")):
            columns[f"{kind}_{name}"] = pa.array(values[:, index].T.ravel())
    return pa.table(columns)


def pick_device(name: str) -> torch.device:
    """The device asked for; ``auto`` is a CUDA GPU where there is one.

    Raises:
        UserError: a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices; "
                        "allowed here: auto, cpu")  # fmt: skip
    return device


def identify(settings: Settings, table: Table) -> tuple[str, str]:
    """Run id, readable and ending in a hash of everything that decides the numbers, and the hash without the seeds."""
    decisive = _without(settings.config, PLACE)
    decisive["dataset"] = {"name": settings.dataset, "fingerprint": table.fingerprint}
    decisive["method"] = _without(settings.config["method"], PRESENTATION)
    decisive["numbers"] = NUMBERS
    if settings.start.file is not None:
        decisive["init"] = {"sha256": hashlib.sha256(Path(settings.start.file).read_bytes()).hexdigest()}
    config_hash = _digest(decisive)
    full = _digest({"config": config_hash, "seed": settings.seed, "repetitions": settings.repetitions})
    return f"{settings.dataset}-{settings.method.name}-s{settings.seed}-n{settings.repetitions}-{full}", config_hash


def _as_found(config: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The configuration with what ``auto`` turned out to be (one's own table)."""
    dataset = dict(config["dataset"])
    if dataset.get("task") == "auto":
        dataset |= {"task": table.task, "metric": "mse" if table.task == "regression" else "error"}
    return {**config, "dataset": dataset}


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@cache
def code_version() -> dict[str, Any]:
    """Version of this package and, in a checkout, the commit and whether files differ from it."""
    root = Path(__file__).resolve().parent.parent
    commit, dirty = None, None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        status = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = None if status is None else bool(status)
    return {"version": __version__, "numbers": NUMBERS, "git_commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: torch.device, workers: int) -> dict[str, Any]:
    """Where a run was computed."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "kernels": native.kernels().why if device.type == "cpu" else None,
        "workers": workers,
    }


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
