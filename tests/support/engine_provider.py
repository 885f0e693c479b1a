"""Stand-ins for providers of the real pulumi engine, served by the test's own process.

The CLI attaches to them (PULUMI_DEBUG_PROVIDERS). So a test sees all that the engine asks for, in its order, and can
make any step fail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from cli.review.paths import different
from cli.review.rules import matching, replacing
from engine.model import Registration
from engine.simulation import simulate_create, simulate_invoke

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """What the engine asked for. `operation`: create, update or delete; restart: an update that stopped a machine."""

    operation: str
    type: str
    name: str


class HalfMade(Exception):
    """The thing is there, but a later call of the same step failed.

    The bridge of pulumi's providers then gives the engine the id and the error, and the state keeps the thing
    (pulumi-terraform-bridge, pkg/tfbridge/provider.go, initializationError). The next `up` updates it.
    """

    def __init__(self, id_: str, outputs: Json, reason: Exception) -> None:
        super().__init__(str(reason))
        self.id, self.outputs, self.reason = id_, outputs, reason


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One package. The methods below `the work` are for its subclasses.

    `events`: what was done; several providers may share the list. `before` and `after` are called with each event; what
    they raise is the answer. `gone`: whether an error of a deletion says that there is nothing to delete.
    """

    package = ""
    version = "1.0.0"

    def __init__(self, events: list[Event] | None = None) -> None:
        self.events: list[Event] = [] if events is None else events
        self.before: Callable[[Event], None] = lambda event: None
        self.after: Callable[[Event], None] = lambda event: None
        self._lock = threading.Lock()  # moto is not made for calls at the same time

    # --- the work ---

    def create(self, kind: str, urn: str, inputs: Json) -> tuple[str, Json]:
        """The id, and the outputs beside the inputs."""
        raise NotImplementedError

    def read(self, kind: str, id_: str, inputs: Json, outputs: Json) -> tuple[Json, Json] | None:
        """The inputs and the other outputs as they are now; None if there is no such thing any more."""
        return inputs, outputs

    def update(self, kind: str, name: str, id_: str, old: Json, new: Json) -> Json:
        """The outputs that differ from those before."""
        return {}

    def delete(self, kind: str, id_: str, inputs: Json) -> None:
        pass

    def invoke(self, token: str, arguments: Json) -> Json:
        return simulate_invoke(token, arguments)

    def changed(self, kind: str, old: Json, new: Json) -> tuple[list[str], list[str]]:
        """The paths of the inputs that differ, and those of them that replace the resource."""
        paths = list(different(old, new))
        return paths, matching(paths, replacing({"type": kind, "inputs": new}))

    def gone(self, error: Exception) -> bool:
        return False

    # --- the protocol ---

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=f'{{"name": "{self.package}"}}')

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return self._diff(f"pulumi:providers:{self.package}", _plain(request.olds), _plain(request.news))

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=False, acceptResources=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Invoke(self, request: Any, context: Any) -> Any:
        with self._lock:
            try:
                found = self.invoke(request.tok, _plain(request.args))
            except Exception as error:
                context.abort(grpc.StatusCode.UNKNOWN, _words(error))
        return provider_pb2.InvokeResponse(**{"return": _struct(found)})

    def Diff(self, request: Any, context: Any) -> Any:
        return self._diff(_kind(request.urn), _plain(request.old_inputs), _plain(request.news))

    def _diff(self, kind: str, old: Json, new: Json) -> Any:
        paths, replaces = self.changed(kind, old, new)
        Kind = provider_pb2.PropertyDiff.Kind
        detailed = {
            path: provider_pb2.PropertyDiff(
                kind=Kind.UPDATE_REPLACE if path in replaces else Kind.UPDATE, inputDiff=True
            )
            for path in paths
        }
        changes = provider_pb2.DiffResponse.DIFF_SOME if paths else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=changes, replaces=replaces, diffs=paths, detailedDiff=detailed, hasDetailedDiff=True
        )

    def Create(self, request: Any, context: Any) -> Any:
        inputs = _plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        made, outputs = self._do(
            "create", request.urn, context, lambda: self.create(_kind(request.urn), request.urn, inputs), inputs
        )
        return provider_pb2.CreateResponse(id=made, properties=_struct(inputs | outputs))

    def Read(self, request: Any, context: Any) -> Any:
        inputs, properties = _plain(request.inputs), _plain(request.properties)
        outputs = {key: value for key, value in properties.items() if key not in inputs}
        with self._lock:
            try:
                found = self.read(_kind(request.urn), request.id, inputs, outputs)
            except Exception as error:
                context.abort(grpc.StatusCode.UNKNOWN, _words(error))
        if found is None:
            return provider_pb2.ReadResponse()
        now, others = found
        return provider_pb2.ReadResponse(id=request.id, properties=_struct(outputs | others | now), inputs=_struct(now))

    def Update(self, request: Any, context: Any) -> Any:
        old, new = _plain(request.old_inputs), _plain(request.news)
        outputs = {key: value for key, value in _plain(request.olds).items() if key not in old}
        kind, name = _kind(request.urn), _name(request.urn)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=_struct(outputs | new))
        changed = self._do("update", request.urn, context, lambda: self.update(kind, name, request.id, old, new), new)
        return provider_pb2.UpdateResponse(properties=_struct(outputs | changed | new))

    def Delete(self, request: Any, context: Any) -> Any:
        properties = _plain(request.properties)
        self._do("delete", request.urn, context, lambda: self.delete(_kind(request.urn), request.id, properties), {})
        return empty_pb2.Empty()

    def _do(self, operation: str, urn: str, context: Any, work: Callable[[], Any], inputs: Json) -> Any:
        event = Event(operation, _kind(urn), _name(urn))
        with self._lock:
            try:
                self.before(event)
                result = work()
                self.events.append(event)
                self.after(event)
            except HalfMade as half:
                self.events.append(event)
                _abort_half_made(context, half, inputs)
            except Exception as error:
                if operation == "delete" and self.gone(error):
                    self.events.append(event)
                    return None
                context.abort(grpc.StatusCode.UNKNOWN, _words(error))
        return result


class Simulated(Provider):
    """A provider whose things are nowhere: each output follows from the resource's URN (engine/simulation.py).

    `outputs`: those of resources whose names end so.
    """

    def __init__(self, package: str, events: list[Event], outputs: Mapping[str, Json] | None = None) -> None:
        super().__init__(events)
        self.package, self.outputs = package, outputs or {}

    def create(self, kind: str, urn: str, inputs: Json) -> tuple[str, Json]:
        name = _name(urn)
        made, outputs = simulate_create(Registration(urn, kind, name, inputs))
        for ending, others in self.outputs.items():
            if name.endswith(ending):
                outputs |= others
        return made, outputs


@contextmanager
def serving(*providers: Provider) -> Iterator[str]:
    """Serve them; yields the value of PULUMI_DEBUG_PROVIDERS."""
    servers = []
    places = []
    try:
        for provider in providers:
            server = grpc.server(
                ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 64 << 20)]
            )
            servers.append(server)
            provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
            places.append(f"{provider.package}:{server.add_insecure_port('127.0.0.1:0')}")
            server.start()
        yield ",".join(places)
    finally:
        for server in servers:
            server.stop(grace=None)


def _abort_half_made(context: Any, half: HalfMade, inputs: Json) -> None:
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=half.id, properties=_struct(inputs | half.outputs), reasons=[_words(half.reason)], inputs=_struct(inputs)
        )
    )
    code, words = grpc.StatusCode.UNKNOWN, _words(half.reason)
    status = status_pb2.Status(code=code.value[0], message=words, details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, words)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _kind(urn: str) -> str:
    return urn.split("::")[2].split("$")[-1]


def _name(urn: str) -> str:
    return urn.split("::")[3]


def _plain(struct: struct_pb2.Struct) -> Json:
    """A message as Python values; whole numbers as int, without the provider's own `__defaults`."""
    return {key: _number(value) for key, value in MessageToDict(struct).items() if not key.startswith("__")}


def _number(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    return [_number(item) for item in value] if isinstance(value, list) else value


def _struct(values: Json) -> struct_pb2.Struct:
    message = struct_pb2.Struct()
    message.update(values)
    return message


def of(events: Sequence[Event], kind: str) -> list[tuple[str, str]]:
    """What was done with resources of a type, in order: (operation, name)."""
    return [(event.operation, event.name) for event in events if event.type == kind]
