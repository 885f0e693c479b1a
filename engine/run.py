"""Run a Pulumi program in this process, without the engine, and record what it registers.

The SDK speaks to the engine through two stubs, a resource monitor and a log. Both are plain objects here, on the
program's own event loop, and not gRPC services: the SDK sends several blocking log calls per resource, each a round
trip over gRPC, and one loop without threads makes the order of registration the same in every run, which golden
files need. Only callbacks (transforms, hooks) go over gRPC, for the SDK serves them itself.

The rules (URNs, inheritance from the parent, transforms, providers) are those of pulumi's
pkg/resource/deploy/source_eval.go. What this engine does not have: state and hence diffs, aliases' effect, remote
components' children, methods, transforms of invokes, error hooks' retries.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import gc
import itertools
import runpy
import selectors
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, cast

import grpc.aio  # type: ignore[import-untyped]
import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2  # type: ignore[import-untyped]
from google.protobuf.message import Message as Proto  # type: ignore[import-untyped]
from pulumi.runtime import Settings, configure, rpc, run_in_stack, set_all_config
from pulumi.runtime.proto import callback_pb2, callback_pb2_grpc, engine_pb2, resource_pb2
from pulumi.runtime.settings import SETTINGS

from engine.simulation import simulate_create, simulate_invoke

UNKNOWN = "<known after up>"
SECRET = "<secret>"
STACK_TYPE = "pulumi:pulumi:Stack"

# A program whose loop has nothing to run, no timer and no open connection waits for itself; this long, in seconds,
# a thread of its own may still wake it.
_STALLED_AFTER = 3.0

# No OUTPUT_VALUES and no INVOKE_DEPENDS_ON: without them the SDK itself waits for what an invoke depends on.
_FEATURES = [
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACEMENT_TRIGGER,
    resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_REPLACE_WITH,
    resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_PARAMETERIZATION,
    resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_HOOKS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_ERROR_HOOKS,
]

Json = dict[str, Any]
Create = Callable[["Registration"], tuple[str, Json]]
Invoke = Callable[[str, Json], Json]
Known = Callable[["Registration"], Json]


class ProgramError(Exception):
    """The program failed; str() is its message, `trace` the Python traceback that led to it."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class HangError(ProgramError):
    """The program did not end; str() says what was registered and what waits for what."""


@dataclass(frozen=True)
class Registration:
    """What `create` and `known` are told of a resource. `inputs`: for `create` plain, secrets included; for `known`
    as in a Resource."""

    urn: str
    type: str
    name: str
    inputs: Json


@dataclass(frozen=True)
class Resource:
    """A resource as the engine would get it, with what it inherits from its parent.

    In `inputs` an unknown leaf is UNKNOWN, a secret one SECRET. `dependencies` holds the explicit ones and those
    by property, sorted. `provider` is the provider's URN, None for the package's default provider. `source` is
    FILE:LINE of the call that made it.
    """

    urn: str
    type: str
    name: str
    parent: str | None
    custom: bool
    inputs: Json
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: str | None = None
    providers: Mapping[str, str] = field(default_factory=dict)
    deleted_with: str | None = None
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    replace_with: tuple[str, ...] = ()
    delete_before_replace: bool | None = None
    additional_secret_outputs: tuple[str, ...] = ()
    protect: bool = False
    retain_on_delete: bool = False
    custom_timeouts: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    external_id: str | None = None
    source: str | None = None

    def to_json(self) -> Json:
        """Keys in pulumi's camelCase. The first ten are always there, the others where they say something.

        `source` is left out: it moves with every edit of the program.
        """
        always = {
            "urn": self.urn,
            "type": self.type,
            "name": self.name,
            "parent": self.parent,
            "custom": self.custom,
            "inputs": self.inputs,
            "dependencies": list(self.dependencies),
            "provider": self.provider,
            "deletedWith": self.deleted_with,
            "ignoreChanges": list(self.ignore_changes),
        }
        sometimes = {
            "propertyDependencies": {key: list(urns) for key, urns in self.property_dependencies.items()},
            "providers": dict(self.providers),
            "replaceOnChanges": list(self.replace_on_changes),
            "replaceWith": list(self.replace_with),
            "deleteBeforeReplace": self.delete_before_replace,
            "additionalSecretOutputs": list(self.additional_secret_outputs),
            "protect": self.protect or None,
            "retainOnDelete": self.retain_on_delete or None,
            "customTimeouts": dict(self.custom_timeouts),
            "version": self.version,
            "externalId": self.external_id,
        }
        return always | {key: value for key, value in sometimes.items() if value not in (None, [], {})}


@dataclass(frozen=True)
class Message:
    """A line of the program's log: severity is info, warning or error."""

    severity: str
    text: str
    urn: str | None = None


@dataclass(frozen=True)
class Deployment:
    """One run of a program: its resources in the order in which it made them, its outputs and its log."""

    project: str
    stack: str
    resources: tuple[Resource, ...]
    outputs: Json
    messages: tuple[Message, ...]

    def to_json(self) -> Json:
        return {
            "stack": self.stack,
            "resources": [resource.to_json() for resource in self.resources],
            "outputs": self.outputs,
        }


def run_program(
    program: Path | Callable[[], Awaitable[None] | None],
    *,
    project: str = "cni-lab",
    stack: str = "dev",
    config: Mapping[str, str] | None = None,
    secret_keys: Sequence[str] = (),
    dry_run: bool = True,
    create: Create | None = None,
    invoke: Invoke | None = None,
    known: Known | None = None,
    timeout: float = 120.0,
) -> Deployment:
    """Run a program (a file, or a function) to its end.

    `config` holds full keys ("aws:region") and string values, `secret_keys` those of its keys that are secret.
    With dry_run a custom resource's outputs are unknown beyond its inputs and what `known` says of it (as a preview
    reads it from the state), and a data source's answer is unknown.
    Without, `create` makes id and outputs of each resource and `invoke` the answers (by default both come from
    engine.simulation). Raises ProgramError where the program fails, HangError where it is not done after `timeout`
    seconds, or waits for itself.
    """
    monitor = _Monitor(project, stack, dry_run, create or simulate_create, invoke or simulate_invoke, known)
    run = _Run(program, monitor, dict(config or {}), list(secret_keys))
    # A context of its own keeps the SDK's global state (settings, root stack, config) apart from other runs'.
    thread = threading.Thread(target=contextvars.Context().run, args=(run.body,), name="program", daemon=True)
    with _no_garbage_collection():
        thread.start()
        thread.join(timeout)
    if thread.is_alive():
        raise run.cut(thread, timeout)
    if run.failure is not None:
        raise _explain(run.failure) from None
    resources = sorted(monitor.resources.values(), key=lambda resource: monitor.order[resource.urn])
    return Deployment(project, stack, tuple(resources), monitor.outputs, tuple(monitor.log.messages))


# --- the run: thread, loop, hangs ------------------------------------------------------------------------------------


class _Stalled(Exception):
    """Nothing in the loop will ever wake the program again."""


class _Selector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # asyncio passes no timeout when it has nothing to run and no timer; its own wake-up pipe is the one key.
        idle = timeout is None and len(self.get_map()) <= 1
        events: list[tuple[selectors.SelectorKey, int]] = super().select(_STALLED_AFTER if idle else timeout)
        if idle and not events:
            raise _Stalled
        return events


class _Loop(asyncio.SelectorEventLoop):
    """The SDK hands each monitor call to an executor; here the call runs at once, or as a task where it is async.

    Tasks are named by number: the SDK begins a registration's task when the program makes the resource, so the
    numbers tell the program's order, while requests arrive in an order that varies with the memory's layout.
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
    """The program's thread: what runs in it, how it failed, and how to end it."""

    def __init__(
        self,
        program: Path | Callable[[], Awaitable[None] | None],
        monitor: _Monitor,
        config: dict[str, str],
        secret_keys: list[str],
    ) -> None:
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
            # After a failure the SDK may go on to wait for what will now never come: the failure is the news.
            hang = HangError(f"the program waits for itself:\n{self._report()}")
            self.failure = SETTINGS.rpc_manager.unhandled_exception or hang
        except BaseException as error:
            self.failure = error
        finally:
            self._close()

    async def _call_program(self) -> None:
        if isinstance(self.program, Path):
            runpy.run_path(str(self.program), run_name="__main__")
        elif (awaitable := self.program()) is not None:
            await awaitable
        # The SDK would wait again for all that is left each time one is done: quadratic in the number of outputs.
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
            self.loop.run_until_complete(asyncio.wait_for(self._finish(tasks), 5))
        except (Exception, asyncio.CancelledError) as error:
            self.failure = self.failure or error
        finally:
            self.loop.close()

    async def _finish(self, tasks: set[asyncio.Task[Any]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.monitor.close()

    def cut(self, thread: threading.Thread, timeout: float) -> HangError:
        """End a run that takes too long; what it was doing is read first."""
        frame = sys._current_frames().get(thread.ident or 0)
        at = _program_line(frame)
        busy = f"\nthe program itself stands at {at}" if at else ""
        error = HangError(f"the program is not done after {timeout:g} s:{busy}\n{self._report()}")
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:  # the loop was closed meanwhile: the thread is about to end
            return error
        thread.join(1)
        if thread.is_alive():  # it is in Python code, not in the loop
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        return error

    def _report(self) -> str:
        registered = [resource for resource in self.monitor.resources.values() if resource.type != STACK_TYPE]
        last = ", ".join(f"{resource.name} ({resource.type})" for resource in registered[-10:])
        lines = [f"  {len(registered)} resources were registered" + (f", the last of them {last}" if last else "")]
        waits = list(_waits(asyncio.all_tasks(self.loop)))
        lines += [f"  {wait}" for wait in waits[:40]]
        if len(waits) > 40:
            lines.append(f"  and {len(waits) - 40} more wait")
        return "\n".join(lines)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A run makes many objects that live to its end: searching them for garbage costs a third of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


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
    """The message a person needs: pulumi.RunError's own text; else the error's type, text and place."""
    if isinstance(failure, ProgramError):
        return failure
    trace = "".join(traceback.format_exception(failure))
    if isinstance(failure, pulumi.RunError):
        return ProgramError(str(failure), trace)
    if isinstance(failure, SystemExit):
        return ProgramError(f"the program called exit({failure.code})", trace)
    frames = [frame for frame in traceback.extract_tb(failure.__traceback__) if not _is_machinery(frame.filename)]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return ProgramError(f"{type(failure).__name__}: {failure}{place}", trace)


def _is_machinery(filename: str) -> bool:
    return filename == __file__ or filename.startswith("<") or "site-packages" in filename or "asyncio" in filename


def _program_line(frame: FrameType | None) -> str | None:
    """FILE:LINE of the innermost frame that is the program's own code."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not _is_machinery(name) and not name.startswith(sys.base_prefix + "/lib"):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _waits(tasks: set[asyncio.Task[Any]]) -> Iterator[str]:
    """One line for each registration under way: what it waits for.

    The SDK keeps no record of that, so it is read from its suspended coroutines: each registration is a coroutine
    `do_register` with the resource in its closure, and what it waits for is, through any number of applies, the
    promise behind another resource's output.
    """
    pending: dict[asyncio.Task[Any], pulumi.Resource] = {}
    for task in tasks:
        coroutine = task.get_coro()
        if isinstance(coroutine, CoroutineType) and coroutine.__name__ == "do_register" and coroutine.cr_frame:
            pending[task] = coroutine.cr_frame.f_locals["res"]
    promises = {
        id(value._data): f"{resource._name}.{key}"
        for resource in pending.values()
        for key, value in vars(resource).items()
        if isinstance(value, pulumi.Output)
    }
    for task, resource in sorted(pending.items(), key=lambda item: (item[1]._type, item[1]._name)):
        waits_for = sorted(set(_roots(task, promises, set()))) or ["the engine's answer"]
        yield f"{resource._name} ({resource._type}) waits for {', '.join(waits_for)}"


def _roots(future: Any, promises: Mapping[int, str], seen: set[int]) -> Iterator[str]:
    """The names of the promises at the end of a chain of futures."""
    if future is None or future.done() or id(future) in seen:
        return
    seen.add(id(future))
    if id(future) in promises:
        yield promises[id(future)]
    elif isinstance(future, asyncio.Task):
        yield from _roots(getattr(future, "_fut_waiter", None), promises, seen)
    elif children := getattr(future, "_children", None):  # asyncio.gather
        for child in children:
            yield from _roots(child, promises, seen)
    else:
        yield "a future that nothing resolves"


# --- the resource monitor and the log --------------------------------------------------------------------------------


class _Log:
    """Stands in for the Engine service."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def Log(self, request: engine_pb2.LogRequest) -> empty_pb2.Empty:
        if request.severity != engine_pb2.DEBUG and not request.ephemeral:
            severity = engine_pb2.LogSeverity.Name(request.severity).lower()
            self.messages.append(Message(severity, request.message, request.urn or None))
        return empty_pb2.Empty()

    def RequirePulumiVersion(
        self, request: engine_pb2.RequirePulumiVersionRequest
    ) -> engine_pb2.RequirePulumiVersionResponse:
        # The range is about the CLI's version, and there is no CLI.
        return engine_pb2.RequirePulumiVersionResponse()


@dataclass(frozen=True)
class _State:
    """What later calls need of a resource beyond its record."""

    id: str
    properties: struct_pb2.Struct
    transforms: tuple[callback_pb2.Callback, ...]


class _Monitor:
    """Stands in for the ResourceMonitor service. The SDK awaits the async methods and calls the others at once."""

    def __init__(
        self, project: str, stack: str, dry_run: bool, create: Create, invoke: Invoke, known: Known | None
    ) -> None:
        self.project, self.stack, self.dry_run = project, stack, dry_run
        self.create, self.invoke, self.known = create, invoke, known
        self.log = _Log()
        self.resources: dict[str, Resource] = {}  # as they arrived
        self.order: dict[str, int] = {}  # when the program made them
        self.outputs: Json = {}
        self.states: dict[str, _State] = {}
        self.stack_transforms: list[callback_pb2.Callback] = []
        self.hooks: dict[str, resource_pb2.RegisterResourceHookRequest] = {}
        self.channels: dict[str, grpc.aio.Channel] = {}

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()

    # What the SDK asks first.

    def GetDeploymentInfo(self, request: empty_pb2.Empty) -> resource_pb2.DeploymentInfo:
        return resource_pb2.DeploymentInfo(
            project=self.project, stack=self.stack, dryRun=self.dry_run, supportedFeatures=_FEATURES
        )

    def RegisterPackage(self, request: resource_pb2.RegisterPackageRequest) -> resource_pb2.RegisterPackageResponse:
        return resource_pb2.RegisterPackageResponse(ref=f"{request.name}@{request.version}")

    def SignalAndWaitForShutdown(self, request: empty_pb2.Empty) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    # Resources.

    async def RegisterResource(
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        self._inherit(request)
        await self._transform(request)
        provider = request.provider.rpartition("::")[0] if request.custom else ""
        timeouts = {entry.name: value for entry, value in request.customTimeouts.ListFields()}
        position = request.sourcePosition
        resource = self._record(
            Resource(
                urn=self._urn(request.parent, request.type, request.name),
                type=request.type,
                name=request.name,
                parent=request.parent or None,
                custom=request.custom,
                inputs=_masked(request.object),
                dependencies=_dependencies(request),
                property_dependencies={
                    key: tuple(sorted(request.propertyDependencies[key].urns))
                    for key in sorted(request.propertyDependencies)
                    if request.propertyDependencies[key].urns
                },
                provider=provider or None,
                providers={key: request.providers[key].rpartition("::")[0] for key in sorted(request.providers)},
                deleted_with=request.deletedWith or None,
                ignore_changes=tuple(request.ignoreChanges),
                replace_on_changes=tuple(request.replaceOnChanges),
                replace_with=tuple(request.replace_with),
                delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
                additional_secret_outputs=tuple(request.additionalSecretOutputs),
                protect=request.protect,
                retain_on_delete=request.retainOnDelete,
                custom_timeouts=timeouts,
                version=request.version or None,
                source=f"{position.uri.removeprefix('file://')}:{position.line}" if position.uri else None,
            )
        )
        if request.custom:
            await self._run_hooks(request.hooks.before_create, resource, new_inputs=request.object)
            id_, properties = self._outputs(resource, request.object)
            await self._run_hooks(
                request.hooks.after_create, resource, id=id_, new_inputs=request.object, new_outputs=properties
            )
        else:
            id_, properties = "", struct_pb2.Struct()  # a component's outputs come by RegisterResourceOutputs
        self.states[resource.urn] = _State(id_, properties, tuple(request.transforms))
        return resource_pb2.RegisterResourceResponse(urn=resource.urn, id=id_, object=properties)

    def _outputs(self, resource: Resource, inputs: struct_pb2.Struct) -> tuple[str, struct_pb2.Struct]:
        """A custom resource's id and outputs; in a dry run its inputs are all that is known of it."""
        id_ = ""
        properties = struct_pb2.Struct()
        properties.CopyFrom(inputs)
        if self.dry_run and self.known:
            told = self.known(Registration(resource.urn, resource.type, resource.name, resource.inputs))
            properties.MergeFrom(_struct(told))
        if not self.dry_run:
            plain = _plain(inputs)
            id_, outputs = self.create(Registration(resource.urn, resource.type, resource.name, plain))
            changed = {key: value for key, value in outputs.items() if key not in plain or plain[key] != value}
            properties.MergeFrom(_struct(changed))
        for key in resource.additional_secret_outputs:
            value = (
                properties.fields[key] if key in properties.fields else _value(rpc.UNKNOWN if self.dry_run else None)
            )
            if not _is_secret(value):
                secret = struct_pb2.Struct()
                secret.fields[rpc._special_sig_key].string_value = rpc._special_secret_sig
                secret.fields["value"].CopyFrom(value)
                properties.fields[key].struct_value.CopyFrom(secret)
        return id_, properties

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:
        if self.resources[request.urn].type == STACK_TYPE:
            self.outputs = _masked(request.outputs)
        return empty_pb2.Empty()

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:
        """`.get()`: in a dry run nothing beyond the id is known of the resource, for nobody is asked."""
        resource = self._record(
            Resource(
                urn=self._urn(request.parent, request.type, request.name),
                type=request.type,
                name=request.name,
                parent=request.parent or None,
                custom=True,
                inputs=_masked(request.properties),
                dependencies=tuple(sorted(request.dependencies)),
                provider=request.provider.rpartition("::")[0] or None,
                additional_secret_outputs=tuple(request.additionalSecretOutputs),
                version=request.version or None,
                external_id=UNKNOWN if request.id == rpc.UNKNOWN else request.id,
            )
        )
        _, properties = self._outputs(resource, request.properties)
        self.states[resource.urn] = _State(request.id, properties, ())
        return resource_pb2.ReadResourceResponse(urn=resource.urn, id=request.id, properties=properties)

    def _urn(self, parent: str, type_: str, name: str) -> str:
        parent_type = parent.split("::")[2] if parent else STACK_TYPE
        qualified = type_ if parent_type == STACK_TYPE else f"{parent_type}${type_}"
        return f"urn:pulumi:{self.stack}::{self.project}::{qualified}::{name}"

    def _record(self, resource: Resource) -> Resource:
        if resource.urn in self.resources:
            first = self.resources[resource.urn].source
            raise pulumi.RunError(
                f"two resources have the URN {resource.urn}: give one of them another name or parent"
                + (f" ({first} and {resource.source})" if first and resource.source else "")
            )
        self.resources[resource.urn] = resource
        task = asyncio.current_task()
        self.order[resource.urn] = int(task.get_name()) if task else 0
        return resource

    def _inherit(self, request: resource_pb2.RegisterResourceRequest) -> None:
        """What the engine, not the SDK, takes from the parent where the resource does not say it itself."""
        parent = self.resources.get(request.parent)
        if parent is None:
            return
        request.deletedWith = request.deletedWith or parent.deleted_with or ""
        if not request.HasField("protect"):
            request.protect = parent.protect
        if not request.HasField("retainOnDelete"):
            request.retainOnDelete = parent.retain_on_delete
        package = request.type.split(":")[0]
        if request.custom and not request.provider and package != "pulumi":
            request.provider = self._reference(parent.providers.get(package)) or self._own_provider(parent, package)
        elif not request.custom:
            for key, urn in parent.providers.items():
                if key not in request.providers:
                    request.providers[key] = self._reference(urn)

    def _own_provider(self, parent: Resource, package: str) -> str:
        """A custom parent's own provider serves children of the same package."""
        same = parent.provider is not None and self.resources[parent.provider].type == f"pulumi:providers:{package}"
        return self._reference(parent.provider) if same else ""

    def _reference(self, urn: str | None) -> str:
        """A provider reference as the SDK writes it: URN::ID."""
        return f"{urn}::{self.states[urn].id or rpc.UNKNOWN}" if urn else ""

    # Data sources.

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        if request.tok == "pulumi:pulumi:getResource":
            urn = _plain(request.args)["urn"]
            state = self.states[urn]
            result = _struct({"urn": urn, "id": state.id})
            result.fields["state"].struct_value.CopyFrom(state.properties)
        elif self.dry_run:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        else:
            result = _struct(self.invoke(request.tok, _plain(request.args)))
        return resource_pb2.ResourceInvokeResponse(**{"return": result})

    def Call(self, request: resource_pb2.ResourceCallRequest) -> Proto:
        raise pulumi.RunError(f"{request.tok} is a method that only its provider's plugin can run")

    # Transforms and hooks: callbacks that the program serves.

    def RegisterStackTransform(self, request: callback_pb2.Callback) -> empty_pb2.Empty:
        self.stack_transforms.append(request)
        return empty_pb2.Empty()

    def RegisterResourceHook(self, request: resource_pb2.RegisterResourceHookRequest) -> empty_pb2.Empty:
        self.hooks[request.name] = request
        return empty_pb2.Empty()

    def RegisterErrorHook(self, request: resource_pb2.RegisterErrorHookRequest) -> empty_pb2.Empty:
        # It would run where a creation fails; here that ends the run.
        return empty_pb2.Empty()

    async def _transform(self, request: resource_pb2.RegisterResourceRequest) -> None:
        """The resource's own transforms, then its ancestors', then the stack's."""
        callbacks = list(request.transforms)
        ancestor = request.parent or None
        while ancestor is not None:
            callbacks += self.states[ancestor].transforms
            ancestor = self.resources[ancestor].parent
        for callback in callbacks + self.stack_transforms:
            options = resource_pb2.TransformResourceOptions()
            for option, name in _TRANSFORM_OPTIONS.items():
                _copy_field(request, name, options, option)
            if request.deleteBeforeReplaceDefined:
                options.delete_before_replace = request.deleteBeforeReplace
            answer = resource_pb2.TransformResponse.FromString(
                await self._call(
                    callback,
                    resource_pb2.TransformRequest(
                        type=request.type,
                        name=request.name,
                        custom=request.custom,
                        parent=request.parent,
                        properties=request.object,
                        options=options,
                    ),
                )
            )
            if answer.HasField("properties"):
                request.object.CopyFrom(answer.properties)
            if answer.HasField("options"):
                for option, name in _TRANSFORM_OPTIONS.items():
                    _copy_field(answer.options, option, request, name)
                request.deleteBeforeReplaceDefined = answer.options.HasField("delete_before_replace")
                request.deleteBeforeReplace = answer.options.delete_before_replace

    async def _run_hooks(self, names: Sequence[str], resource: Resource, **details: Any) -> None:
        for name in names:
            hook = self.hooks[name]
            if self.dry_run and not hook.on_dry_run:
                continue
            request = resource_pb2.ResourceHookRequest(
                urn=resource.urn, name=resource.name, type=resource.type, **details
            )
            answer = resource_pb2.ResourceHookResponse.FromString(await self._call(hook.callback, request))
            if answer.error and not hook.ignore_errors:
                raise pulumi.RunError(f"the hook {name} of {resource.urn} failed: {answer.error}")

    async def _call(self, callback: callback_pb2.Callback, request: Proto) -> bytes:
        channel = self.channels.get(callback.target)
        if channel is None:
            channel = self.channels[callback.target] = grpc.aio.insecure_channel(callback.target)
        stub = callback_pb2_grpc.CallbacksStub(channel)
        # The generated stub is typed for the blocking channel.
        reply = cast(
            "Awaitable[callback_pb2.CallbackInvokeResponse]",
            stub.Invoke(callback_pb2.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())),
        )
        return (await reply).response


_TRANSFORM_OPTIONS = {
    "depends_on": "dependencies",
    "protect": "protect",
    "ignore_changes": "ignoreChanges",
    "replace_on_changes": "replaceOnChanges",
    "replacement_trigger": "replacement_trigger",
    "version": "version",
    "aliases": "aliases",
    "provider": "provider",
    "providers": "providers",
    "hide_diff": "hideDiffs",
    "custom_timeouts": "customTimeouts",
    "plugin_download_url": "pluginDownloadURL",
    "retain_on_delete": "retainOnDelete",
    "deleted_with": "deletedWith",
    "replace_with": "replace_with",
    "additional_secret_outputs": "additionalSecretOutputs",
    "hooks": "hooks",
    "import": "importId",
}
"""TransformResourceOptions' fields and their names in RegisterResourceRequest."""


def _copy_field(source: Proto, name: str, target: Proto, target_name: str) -> None:
    target.ClearField(target_name)
    if source.DESCRIPTOR.fields_by_name[name].has_presence and not source.HasField(name):
        return
    value = getattr(source, name)
    if hasattr(value, "MergeFrom"):
        getattr(target, target_name).MergeFrom(value)
    else:
        setattr(target, target_name, value)


def _dependencies(request: resource_pb2.RegisterResourceRequest) -> tuple[str, ...]:
    by_property = (urn for entry in request.propertyDependencies.values() for urn in entry.urns)
    return tuple(sorted({*request.dependencies, *by_property}))


# --- values ----------------------------------------------------------------------------------------------------------


def _struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(value), struct_pb2.Struct())


def _value(value: Any) -> struct_pb2.Value:
    return json_format.ParseDict(value, struct_pb2.Value())


def _is_secret(value: struct_pb2.Value) -> bool:
    return _signature(value.struct_value) == rpc._special_secret_sig


def _signature(struct: struct_pb2.Struct) -> str | None:
    fields = struct.fields
    return fields[rpc._special_sig_key].string_value if rpc._special_sig_key in fields else None


def _masked(struct: struct_pb2.Struct) -> Json:
    """For people: unknowns and secrets as marks."""
    return cast(Json, _python(struct, True))


def _plain(struct: struct_pb2.Struct) -> Json:
    """For providers: secrets unwrapped."""
    return cast(Json, _python(struct, False))


def _python(struct: struct_pb2.Struct, mask: bool) -> Any:
    signature = _signature(struct)
    if signature is None:
        return {key: _python_value(struct.fields[key], mask) for key in sorted(struct.fields)}
    fields = struct.fields
    if signature == rpc._special_secret_sig:
        return SECRET if mask else _python_value(fields["value"], mask)
    if signature == rpc._special_output_value_sig:
        if mask and fields["secret"].bool_value:
            return SECRET
        return _python_value(fields["value"], mask) if "value" in fields else UNKNOWN
    if signature == rpc._special_resource_sig:
        return fields["urn"].string_value
    # An asset or archive: its path, text, uri or parts.
    return {key: _python_value(fields[key], mask) for key in sorted(fields) if key != rpc._special_sig_key}


def _python_value(value: struct_pb2.Value, mask: bool) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == rpc.UNKNOWN else value.string_value
    if kind == "struct_value":
        return _python(value.struct_value, mask)
    if kind == "list_value":
        return [_python_value(item, mask) for item in value.list_value.values]
    if kind == "number_value":  # protobuf has only doubles
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    return value.bool_value if kind == "bool_value" else None
