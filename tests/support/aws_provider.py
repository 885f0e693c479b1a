"""A stand-in for pulumi's aws provider: the real engine asks it, and it asks moto.

It runs in the test's own process, and the CLI attaches to it (PULUMI_DEBUG_PROVIDERS). So a test sees the cloud, and
can make any call fail. It says no where EC2 says no and moto does not:

- InvalidIPAddress.InUse: a machine at an address that another one has;
- VcpuLimitExceeded: more vCPU than the account may run (`vcpu_quota`);
- DependencyViolation: an internet gateway leaves a VPC in which something has a public address, or a subnet is deleted
  in which machines are;
- UnsupportedOperation: a one-time spot instance is stopped.

Which inputs replace a resource is the table of cli/review/rules.py, with its sources in the provider. What the provider
does not see as a change is none here: instanceMarketOptions that are no longer asked for
(terraform-provider-aws#38141).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from botocore.exceptions import ClientError
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from cli.review.paths import different
from cli.review.rules import matching, replacing
from tests.support.moto_ec2 import Cloud

Json = dict[str, Any]
Operation = str
"""create, update or delete."""

GONE = ("NotFound", "NoSuchEntity", "ParameterNotFound", "Gateway.NotAttached")


@dataclass(frozen=True)
class Event:
    """What the engine asked for, in its order."""

    operation: Operation
    type: str
    name: str


def refusal(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "StandIn")


class StandIn(provider_pb2_grpc.ResourceProviderServicer):
    """`events`: what was done. `before`: called with each event before it is done; what it raises is the answer."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.events: list[Event] = []
        self.before: Callable[[Event], None] = lambda event: None
        self.after: Callable[[Event], None] = lambda event: None
        self.vcpu_quota = 1000
        self._lock = threading.Lock()  # moto is not made for calls at the same time

    # --- the protocol ---

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="7.51.1")

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema='{"name": "aws"}')

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=False, acceptResources=False)

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Invoke(self, request: Any, context: Any) -> Any:
        with self._lock:
            found = self.cloud.invoke(request.tok, _plain(request.args))
        return provider_pb2.InvokeResponse(**{"return": _struct(found)})

    def Diff(self, request: Any, context: Any) -> Any:
        old, new = _plain(request.old_inputs), _plain(request.news)
        kind = request.urn.split("::")[2].split("$")[-1]
        paths = list(different(old, new))
        if "instanceMarketOptions" in old and "instanceMarketOptions" not in new:
            paths = [path for path in paths if not path.startswith("instanceMarketOptions")]
        rules = replacing({"type": kind, "inputs": new})
        replaces = matching(paths, rules)
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

        def create(kind: str) -> tuple[str, Json]:
            if kind == "aws:ec2/instance:Instance":
                self._refuse_instance(inputs)
            return self.cloud.make(kind, inputs)

        made, outputs = self._do("create", request.urn, context, create)
        return provider_pb2.CreateResponse(id=made, properties=_struct(inputs | outputs))

    def Read(self, request: Any, context: Any) -> Any:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Update(self, request: Any, context: Any) -> Any:
        old, new = _plain(request.old_inputs), _plain(request.news)
        outputs = {key: value for key, value in _plain(request.olds).items() if key not in old}
        self._do("update", request.urn, context, lambda kind: self._update(kind, request.id, old, new))
        return provider_pb2.UpdateResponse(properties=_struct(outputs | new))

    def Delete(self, request: Any, context: Any) -> Any:
        properties = _plain(request.properties)
        self._do("delete", request.urn, context, lambda kind: self._delete(kind, request.id, properties))
        return empty_pb2.Empty()

    def _do(self, operation: str, urn: str, context: Any, work: Callable[[str], Any]) -> Any:
        kind, name = urn.split("::")[2].split("$")[-1], urn.split("::")[3]
        event = Event(operation, kind, name)
        with self._lock:
            try:
                self.before(event)
                result = work(kind)
                self.events.append(event)
                self.after(event)
            except Exception as error:
                if operation == "delete" and isinstance(error, ClientError) and _code(error).endswith(GONE):
                    self.events.append(event)
                    return None
                context.abort(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        return result

    # --- what EC2 refuses ---

    def _running(self) -> Iterator[Json]:
        for reservation in self.cloud.ec2.describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in ("terminated", "shutting-down"):
                    yield instance

    def _refuse_instance(self, inputs: Json) -> None:
        running = list(self._running())
        for instance in running:
            if (instance["SubnetId"], instance["PrivateIpAddress"]) == (inputs["subnetId"], inputs["privateIp"]):
                raise refusal("InvalidIPAddress.InUse", f"Address {inputs['privateIp']} is in use.")
        if 2 * (len(running) + 1) > self.vcpu_quota:
            raise refusal("VcpuLimitExceeded", f"You have requested more vCPU capacity than {self.vcpu_quota}")

    def _refuse_detach(self, vpc: str) -> None:
        for instance in self._running():
            if instance["VpcId"] == vpc and instance.get("PublicIpAddress"):
                raise refusal("DependencyViolation", f"Network {vpc} has some mapped public address(es).")

    def _refuse_subnet(self, subnet: str) -> None:
        if any(instance["SubnetId"] == subnet for instance in self._running()):
            raise refusal("DependencyViolation", f"The subnet '{subnet}' has dependencies and cannot be deleted.")

    # --- changes and ends ---

    def _update(self, kind: str, id_: str, old: Json, new: Json) -> None:
        ec2 = self.cloud.ec2
        paths = set(different(old, new))
        tops = {path.split(".")[0].split("[")[0] for path in paths}
        match kind:
            case "aws:ec2/instance:Instance":
                if "instanceType" in tops:
                    if old.get("instanceMarketOptions"):
                        raise refusal("UnsupportedOperation", f"The instance {id_} is a one-time Spot instance.")
                    ec2.stop_instances(InstanceIds=[id_])
                    ec2.modify_instance_attribute(InstanceId=id_, InstanceType={"Value": new["instanceType"]})
                    ec2.start_instances(InstanceIds=[id_])
                if "vpcSecurityGroupIds" in tops:
                    ec2.modify_instance_attribute(InstanceId=id_, Groups=new["vpcSecurityGroupIds"])
            case "aws:ec2/internetGateway:InternetGateway":
                self._refuse_detach(old["vpcId"])
                ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=old["vpcId"])
                ec2.attach_internet_gateway(InternetGatewayId=id_, VpcId=new["vpcId"])
            case "aws:iam/rolePolicy:RolePolicy":
                role, _, policy = id_.partition(":")
                self.cloud.iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=new["policy"])
            case "aws:ssm/parameter:Parameter":
                self.cloud.ssm.put_parameter(Name=id_, Type=new["type"], Value=new["value"], Overwrite=True)
            case "aws:ec2/routeTable:RouteTable":
                for route in new["routes"]:
                    ec2.replace_route(
                        RouteTableId=id_, DestinationCidrBlock=route["cidrBlock"], GatewayId=route["gatewayId"]
                    )
            case _ if tops <= {"tags", "tagsAll"}:
                pass
            case _:
                raise NotImplementedError(f"update of {sorted(paths)} of {kind}")

    def _delete(self, kind: str, id_: str, properties: Json) -> None:
        match kind:
            case "aws:ec2/subnet:Subnet":
                self._refuse_subnet(id_)
            case "aws:ec2/internetGateway:InternetGateway":
                self._refuse_detach(properties["vpcId"])
        self.cloud.delete(kind, id_, properties)


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """Serve it; yields the value of PULUMI_DEBUG_PROVIDERS."""
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"aws:{port}"
    finally:
        server.stop(grace=None)


def _code(error: ClientError) -> str:
    return str(error.response["Error"]["Code"])


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
