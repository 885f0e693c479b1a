"""What the SDK talks to instead of pulumi's engine: the resource monitor and the log.

The rules (URNs, inheritance from the parent, providers) are those of pulumi's pkg/resource/deploy/source_eval.go. What
this monitor does not have: state and therefore diffs, the effect of aliases, the children of remote components,
methods. It refuses transforms, hooks and `.get()`, because the program would plan wrongly without them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pulumi
from google.protobuf import empty_pb2, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime import rpc
from pulumi.runtime.proto import callback_pb2, engine_pb2, resource_pb2

from engine.model import STACK_TYPE, Create, Invoke, Json, Known, Message, Registration, Resource
from engine.values import as_secret, is_secret, masked, plain, to_struct, to_value

# Without OUTPUT_VALUES and INVOKE_DEPENDS_ON the SDK itself waits for what an invoke depends on. Transforms and hooks
# are in the list so that they get here and are refused by name; else the SDK would ask for a newer pulumi CLI.
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


class Log:
    """Stands in for the Engine service; keeps the program's log without its debug lines."""

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
class _Created:
    """What later requests need of a resource beside its record."""

    id: str
    properties: struct_pb2.Struct


class Monitor:
    """Stands in for the ResourceMonitor service. The SDK awaits RegisterResource; the other methods return at once."""

    def __init__(
        self, project: str, stack: str, dry_run: bool, create: Create, invoke: Invoke, known: Known | None
    ) -> None:
        self.project, self.stack, self.dry_run = project, stack, dry_run
        self.create, self.invoke, self.known = create, invoke, known
        self.log = Log()
        self.outputs: Json = {}
        self.registered: dict[str, Resource] = {}  # by URN, in the order of their requests
        self._order: dict[str, int] = {}  # the number of the task that registers it: see engine.run
        self._created: dict[str, _Created] = {}

    @property
    def resources(self) -> list[Resource]:
        """The registered resources in the order in which the program made them."""
        return sorted(self.registered.values(), key=lambda resource: self._order[resource.urn])

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
        if request.transforms:
            raise _unsupported("transforms")
        self._inherit(request)
        provider = request.provider.rpartition("::")[0] if request.custom else ""
        timeouts = {entry.name: value for entry, value in request.customTimeouts.ListFields()}
        position = request.sourcePosition
        trigger = struct_pb2.Struct()
        if request.HasField("replacement_trigger"):
            trigger.fields["value"].CopyFrom(request.replacement_trigger)
        resource = self._record(
            Resource(
                urn=self._urn(request.parent, request.type, request.name),
                type=request.type,
                name=request.name,
                parent=request.parent or None,
                custom=request.custom,
                inputs=masked(request.object),
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
                replacement_trigger=masked(trigger).get("value"),
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
            id_, properties = self._outputs(resource, request.object)
        else:
            id_, properties = "", struct_pb2.Struct()  # a component's outputs come by RegisterResourceOutputs
        self._created[resource.urn] = _Created(id_, properties)
        return resource_pb2.RegisterResourceResponse(urn=resource.urn, id=id_, object=properties)

    def _outputs(self, resource: Resource, inputs: struct_pb2.Struct) -> tuple[str, struct_pb2.Struct]:
        """A custom resource's id and outputs. In a dry run they are its inputs and what `known` returns."""
        id_ = ""
        properties = struct_pb2.Struct()
        properties.CopyFrom(inputs)
        if self.dry_run and self.known:
            found = self.known(Registration(resource.urn, resource.type, resource.name, resource.inputs))
            properties.MergeFrom(to_struct(found))
        if not self.dry_run:
            in_clear = plain(inputs)
            id_, outputs = self.create(Registration(resource.urn, resource.type, resource.name, in_clear))
            changed = {key: value for key, value in outputs.items() if key not in in_clear or in_clear[key] != value}
            properties.MergeFrom(to_struct(changed))
        for key in resource.additional_secret_outputs:
            absent = to_value(rpc.UNKNOWN if self.dry_run else None)
            value = properties.fields.get(key, absent)
            if not is_secret(value):
                properties.fields[key].CopyFrom(as_secret(value))
        return id_, properties

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:
        if self.registered[request.urn].type == STACK_TYPE:
            self.outputs = masked(request.outputs)
        return empty_pb2.Empty()

    def _urn(self, parent: str, type_: str, name: str) -> str:
        parent_type = parent.split("::")[2] if parent else STACK_TYPE
        qualified = type_ if parent_type == STACK_TYPE else f"{parent_type}${type_}"
        return f"urn:pulumi:{self.stack}::{self.project}::{qualified}::{name}"

    def _record(self, resource: Resource) -> Resource:
        if resource.urn in self.registered:
            first = self.registered[resource.urn].source
            raise pulumi.RunError(
                f"two resources have the URN {resource.urn}: give one of them another name or parent"
                + (f" ({first} and {resource.source})" if first and resource.source else "")
            )
        self.registered[resource.urn] = resource
        task = asyncio.current_task()
        self._order[resource.urn] = int(task.get_name()) if task else 0
        return resource

    def _inherit(self, request: resource_pb2.RegisterResourceRequest) -> None:
        """Fills in what the engine, not the SDK, takes from the parent where the resource does not say it itself."""
        parent = self.registered.get(request.parent)
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
        """A custom parent's own provider also serves its children of the same package."""
        same = parent.provider is not None and self.registered[parent.provider].type == f"pulumi:providers:{package}"
        return self._reference(parent.provider) if same else ""

    def _reference(self, urn: str | None) -> str:
        """A provider reference as the SDK writes it: URN::ID."""
        return f"{urn}::{self._created[urn].id or rpc.UNKNOWN}" if urn else ""

    # Data sources.

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        if self.dry_run:
            return resource_pb2.ResourceInvokeResponse(unknown=True)
        answer = to_struct(self.invoke(request.tok, plain(request.args)))
        return resource_pb2.ResourceInvokeResponse(**{"return": answer})

    # What only the pulumi CLI does.

    def Call(self, request: resource_pb2.ResourceCallRequest) -> empty_pb2.Empty:
        raise _unsupported(f"methods ({request.tok})")

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> empty_pb2.Empty:
        raise _unsupported(f"reading an existing resource ({request.type}.get)")

    def RegisterStackTransform(self, request: callback_pb2.Callback) -> empty_pb2.Empty:
        raise _unsupported("transforms")

    def RegisterResourceHook(self, request: resource_pb2.RegisterResourceHookRequest) -> empty_pb2.Empty:
        raise _unsupported(f"hooks ({request.name})")

    def RegisterErrorHook(self, request: resource_pb2.RegisterErrorHookRequest) -> empty_pb2.Empty:
        raise _unsupported(f"hooks ({request.name})")


def _unsupported(feature: str) -> pulumi.RunError:
    return pulumi.RunError(f"the program uses {feature}, which only the pulumi CLI can run: use `pulumi preview`")


def _dependencies(request: resource_pb2.RegisterResourceRequest) -> tuple[str, ...]:
    by_property = (urn for entry in request.propertyDependencies.values() for urn in entry.urns)
    return tuple(sorted({*request.dependencies, *by_property}))
