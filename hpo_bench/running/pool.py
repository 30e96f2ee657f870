"""Where the blocks of a program are computed: threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Protocol

import torch

from hpo_bench.errors import Stopped, described
from hpo_bench.progress import Reporter
from hpo_bench.running import memory
from hpo_bench.running.program import Parts, Program, Row


class Pool(Protocol):
    """Where blocks are computed: threads of this process, or other machines."""

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """Compute the blocks, up to ``workers`` side by side; yield what each gives to its runs
        when it is finished.

        `Program.block` computes one; units of progress are weight updates of one repetition.
        """
        ...


@dataclass(frozen=True)
class Threads:
    """Threads of this process: torch leaves the interpreter while it works, so they share nothing
    but the data.
    """

    def run(
        self, program: Program, blocks: Sequence[Sequence[Row]], workers: int, reporter: Reporter
    ) -> Iterator[Parts]:
        """See `Pool.run`; a block that fails stops the others at their next pause.

        A block for which there is not enough memory is computed in halves.
        """
        stop = threading.Event()
        threads = torch.get_num_threads()

        def attempt(rows: Sequence[Row]) -> Parts:
            done = 0

            def on_progress(count: int) -> None:
                nonlocal done
                done += count * len(rows)
                if count:
                    reporter.advance(count * len(rows))
                if stop.is_set():
                    raise Stopped

            try:
                return program.block(rows, on_progress)
            except (
                SystemExit,
                KeyboardInterrupt,
            ) as error:  # raised by a model of one's own: no wish of the user's
                raise RuntimeError(described(error)) from error
            except (MemoryError, RuntimeError):
                reporter.advance(-done)
                raise

        def work(rows: Sequence[Row]) -> list[Parts]:
            torch.set_num_threads(program.trainer.threads(len(rows), workers))
            try:
                return [attempt(rows)]
            except (MemoryError, RuntimeError) as error:
                if len(rows) == 1 or not memory.is_exhausted(error):
                    raise
            half = -(-len(rows) // 2)
            reporter.say(
                f"not enough memory for {len(rows)} repetitions at once: going on with {half}"
            )
            memory.give_back(program.trainer.device)
            return [*work(rows[:half]), *work(rows[half:])]

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            futures = [pool.submit(work, rows) for rows in blocks]
            try:
                for future in as_completed(futures):
                    yield from future.result()
            finally:
                stop.set()
                for future in futures:
                    future.cancel()
                torch.set_num_threads(threads)
