"""A stand-in for pulumi's aws provider: the real engine asks it, and it asks moto.

It says no where EC2 says no and moto does not (tests/support/ec2_refusals.py), reads what moto has
(tests/support/aws_reads.py), and replaces or changes what the provider's own schema says (tests/support/aws_schema.py).
What the provider does not see as a change is none here: instanceMarketOptions that are no longer asked for
(terraform-provider-aws#38141).
"""

from __future__ import annotations

from typing import Any

from cli.review.paths import different
from tests.support import aws_reads, aws_schema
from tests.support.aws_updates import update
from tests.support.ec2_refusals import GATEWAY, INSTANCE, Propagation, Refusals, refusal
from tests.support.engine_provider import Event, HalfMade, Json, Provider, of, serving
from tests.support.moto_ec2 import Cloud

__all__ = ["Event", "StandIn", "of", "refusal", "serving"]


class StandIn(Provider):
    """`refusals` and `propagation` say how the account behaves."""

    package = "aws"
    version = "7.51.1"

    def __init__(self, cloud: Cloud, events: list[Event] | None = None) -> None:
        super().__init__(events)
        self.cloud = cloud
        self.refusals = Refusals(cloud)
        self.propagation = Propagation()

    def changed(self, kind: str, old: Json, new: Json) -> tuple[list[str], list[str]]:
        if kind.startswith("pulumi:providers:"):
            return [], []
        paths = list(different(old, new))
        if kind == INSTANCE and old.get("instanceMarketOptions") and "instanceMarketOptions" not in new:
            paths = [path for path in paths if not path.startswith("instanceMarketOptions")]
        replaces = aws_schema.replacing(kind, paths, new)
        if "instanceType" in paths and not self._processors(old) & self._processors(new):
            replaces.append("instanceType")  # resourceInstance's CustomizeDiff
        return paths, replaces

    def _processors(self, inputs: Json) -> set[str]:
        found = self.cloud.ec2.describe_instance_types(InstanceTypes=[inputs["instanceType"]])["InstanceTypes"][0]
        return set(found["ProcessorInfo"]["SupportedArchitectures"])

    def create(self, kind: str, urn: str, inputs: Json) -> tuple[str, Json]:
        self.refusals.before_create(kind, inputs)
        error = self.propagation.use(kind, inputs)
        if error and kind != GATEWAY:
            raise error
        id_, outputs = self.cloud.make(kind, inputs)
        self.refusals.after_create(kind, id_, inputs)
        self.propagation.made(kind, id_)

        if error := error or self.propagation.use_of_own(kind, id_):
            # The provider's second call is not done: the one that attaches a gateway, or the one after RunInstances.
            if kind == GATEWAY:
                self.cloud.ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=inputs["vpcId"])
            elif kind == INSTANCE:
                self.cloud.ec2.modify_instance_attribute(InstanceId=id_, SourceDestCheck={"Value": True})
            raise HalfMade(id_, {}, error)
        return id_, outputs

    def read(self, kind: str, id_: str, inputs: Json, outputs: Json) -> tuple[Json, Json] | None:
        return aws_reads.read(self.cloud, kind, id_, inputs)

    def update(self, kind: str, name: str, id_: str, old: Json, new: Json) -> Json:
        if update(self.cloud, self.refusals, kind, id_, old, new):
            self.events.append(Event("restart", kind, name))
        found = aws_reads.read(self.cloud, kind, id_, new)
        return found[1] if found else {}

    def delete(self, kind: str, id_: str, inputs: Json) -> None:
        self.refusals.before_delete(kind, id_, inputs)
        self.cloud.delete(kind, id_, inputs)
        self.refusals.after_delete(id_)

    def gone(self, error: Exception) -> bool:
        return aws_reads.is_gone(error)

    def invoke(self, token: str, arguments: Json) -> Json:
        return self.cloud.invoke(token, arguments)


def machines(stand_in: StandIn) -> dict[str, Any]:
    """The instances that are not terminated, by private address."""
    return {instance["PrivateIpAddress"]: instance for instance in stand_in.refusals.running()}
