"""Runs a Pulumi program in this process, without pulumi's engine, and records what it registers.

The SDK speaks to the engine through two stubs, a resource monitor and a log. Here both are plain objects on the
program's own event loop instead of gRPC services, for two reasons. The SDK sends several blocking log calls for each
resource, and over gRPC each of them is a round trip. And one loop without threads registers resources in the same order
in every run, which golden files need.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import itertools
import runpy
import selectors
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import Settings, configure, run_in_stack, set_all_config
from pulumi.runtime.settings import SETTINGS

from engine import cycles, hang, packages, places
from engine.garbage import no_collection
from engine.model import Create, Deployment, HangError, Invoke, Known, ProgramError
from engine.monitor import Monitor
from engine.simulation import simulate_create, simulate_invoke

Program = Path | Callable[[], Awaitable[None] | None]
"""A file, or a function."""

cycles.install()
packages.install()
places.install()

STALLED_AFTER_SECONDS = 3.0
"""A program whose loop has nothing to run, no timer and no open connection waits for itself. For this long one of the
program's own threads may still wake it."""

_CLOSE_TIMEOUT_SECONDS = 5
_STOP_TIMEOUT_SECONDS = 1


def run_program(
    program: Program,
    *,
    project: str = "cni-lab",
    stack: str = "dev",
    config: Mapping[str, str] | None = None,
    secret_keys: Sequence[str] = (),
    dry_run: bool = True,
    create: Create | None = None,
    invoke: Invoke | None = None,
    known: Known | None = None,
    timeout_seconds: float = 120.0,
) -> Deployment:
    """Run a program to its end.

    `config` holds full keys ("aws:region") and string values; `secret_keys` are those of its keys that are secret.
    In a dry run, as in a preview, a custom resource's outputs are unknown, except for its inputs and for what `known`
    returns; the answer of a data source is unknown. Otherwise `create` makes the id and outputs of each resource, and
    `invoke` answers data sources; both default to those of engine.simulation.

    Raises ProgramError where the program fails, and HangError where it waits for itself or has not ended in time.
    """
    monitor = Monitor(project, stack, dry_run, create or simulate_create, invoke or simulate_invoke, known)
    run = _Run(program, monitor, dict(config or {}), list(secret_keys))
    # A context of its own keeps the SDK's global state (settings, root stack, config) apart from other runs'.
    thread = threading.Thread(target=contextvars.Context().run, args=(run.body,), name="program", daemon=True)
    with no_collection():
        thread.start()
        thread.join(timeout_seconds)
    if thread.is_alive():
        raise run.stop(thread, timeout_seconds)
    if run.failure is not None:
        raise _explain(run.failure) from None
    return Deployment(project, stack, tuple(monitor.resources), monitor.outputs, tuple(monitor.log.messages))


class _Stalled(Exception):
    """Nothing in the loop will ever wake the program again."""


class _Selector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # asyncio passes no timeout when it has nothing to run and no timer; its own wake-up pipe is then the one key.
        idle = timeout is None and len(self.get_map()) <= 1
        events: list[tuple[selectors.SelectorKey, int]] = super().select(STALLED_AFTER_SECONDS if idle else timeout)
        if idle and not events:
            raise _Stalled
        return events


class _Loop(asyncio.SelectorEventLoop):
    """The SDK hands each monitor call to an executor; here the call runs at once, or as a task where it is async.

    Tasks are named by number. The SDK starts a registration's task when the program makes the resource, so the numbers
    follow the program's order; the requests arrive in an order that varies with the memory's layout.
    """

    def __init__(self) -> None:
        super().__init__(_Selector())
        self._numbers = itertools.count()
        # As the language host does: a failed program leaves futures that nobody awaits.
        self.set_exception_handler(lambda loop, context: None)

    def create_task(self, coro: Any, *, name: object = None, **options: Any) -> asyncio.Task[Any]:
        return super().create_task(coro, name=name or str(next(self._numbers)), **options)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            result = func(*args)
            if asyncio.iscoroutine(result):
                caller = asyncio.current_task(self)
                return self.create_task(result, name=caller.get_name() if caller else None)
            future.set_result(result)
        except Exception as error:
            future.set_exception(error)
        return future


class _Run:
    """The program's thread: what runs in it, how it failed, and how to stop it."""

    def __init__(self, program: Program, monitor: Monitor, config: dict[str, str], secret_keys: list[str]) -> None:
        self.program, self.monitor, self.config, self.secret_keys = program, monitor, config, secret_keys
        self.loop = _Loop()
        self.failure: BaseException | None = None

    def body(self) -> None:
        asyncio.set_event_loop(self.loop)
        root = str(self.program.parent if isinstance(self.program, Path) else Path.cwd())
        set_all_config(self.config, self.secret_keys)
        configure(
            Settings(
                project=self.monitor.project,
                stack=self.monitor.stack,
                monitor=self.monitor,
                engine=self.monitor.log,
                dry_run=self.monitor.dry_run,
                organization="organization",
                root_directory=root,
            )
        )
        try:
            with _import_path(root):
                self.loop.run_until_complete(run_in_stack(self._call_program))
        except _Stalled:
            error = HangError(f"the program waits for itself:\n{self._report()}")
            # After a failure the SDK may go on to wait for what will now never come. Then the failure is the cause.
            self.failure = SETTINGS.rpc_manager.unhandled_exception or error
        except BaseException as error:
            self.failure = error
        finally:
            self._close()

    async def _call_program(self) -> None:
        if isinstance(self.program, Path):
            runpy.run_path(str(self.program), run_name="__main__")
        elif (awaitable := self.program()) is not None:
            await awaitable
        # Each time one is done the SDK would wait again for all that is left: quadratic in the number of outputs.
        while pending := [task for task in [*SETTINGS.rpc_manager.rpcs, *SETTINGS.outputs] if not task.done()]:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.cancelled() or task.exception() for task in done):
                return  # the SDK raises it

    def _close(self) -> None:
        """Cancel what a failed program left behind; a task that resists is dropped with the loop."""
        try:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait_for(_ended(tasks), _CLOSE_TIMEOUT_SECONDS))
        except (Exception, asyncio.CancelledError) as error:
            self.failure = self.failure or error
        finally:
            self.loop.close()

    def stop(self, thread: threading.Thread, timeout_seconds: float) -> HangError:
        """Stop a run that takes too long. What it was doing is read first."""
        place = hang.program_line(sys._current_frames().get(thread.ident or 0))
        busy = f"\nthe program itself is at {place}" if place else ""
        error = HangError(f"the program is not done after {timeout_seconds:g} s:{busy}\n{self._report()}")
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:  # the loop was closed meanwhile: the thread is about to end
            return error
        thread.join(_STOP_TIMEOUT_SECONDS)
        if thread.is_alive():  # it is in Python code, not in the loop
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        return error

    def _report(self) -> str:
        return hang.report([*self.monitor.registered.values()], asyncio.all_tasks(self.loop))


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _import_path(root: str) -> Iterator[None]:
    """The program imports from its own folder, as under the language host."""
    if root in sys.path:
        yield
        return
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path.remove(root)


def _explain(failure: BaseException) -> ProgramError:
    """The message a person needs: a pulumi.RunError's own text; of any other error its type, text and place."""
    if isinstance(failure, ProgramError):
        return failure
    trace = "".join(traceback.format_exception(failure))
    if isinstance(failure, pulumi.RunError):
        return ProgramError(str(failure), trace)
    if isinstance(failure, SystemExit):
        return ProgramError(f"the program called exit({failure.code})", trace)
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if not hang.is_machinery(frame.filename)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return ProgramError(f"{type(failure).__name__}: {failure}{place}", trace)
