"""For each rule, resources that break it, and the same resources as they should be."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.spec.names import AWS_MACHINES, LAB, NETWORK
from policy.model import PlannedResource
from policy.rules import INSTANCE, LAUNCH_CONFIGURATION, LAUNCH_TEMPLATE, SPOT

TAGS = {"cni-lab:stack": "s", "cni-lab:owner": "o"}
GROUP = "aws:ec2/securityGroup:SecurityGroup"
RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
VOLUME = "aws:ebs/volume:Volume"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n"

MACHINE: dict[str, Any] = {
    "instanceType": "t3.large",
    "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
    "rootBlockDevice": {"encrypted": True, "tags": TAGS},
    "userData": "#cloud-config\nhostname: one\n",
    "tags": TAGS,
}
"""An instance that keeps to every rule."""
TEMPLATE = {key: MACHINE[key] for key in ("instanceType", "metadataOptions", "tags")}


@dataclass(frozen=True)
class Sample:
    """`says`: a part of the message for the broken resource. `stack`: further resources in the same stack."""

    rule: str
    type: str
    broken: dict[str, Any]
    good: dict[str, Any]
    says: str
    within: tuple[str, ...] = ()
    stack: tuple[PlannedResource, ...] = ()

    def resources(self, props: dict[str, Any]) -> list[PlannedResource]:
        return [*self.stack, resource(self.type, "sample", props, self.within)]


def resource(type_: str, name: str, props: dict[str, Any], within: Sequence[str] = ()) -> PlannedResource:
    return PlannedResource(type_, name, props, f"urn:pulumi:s::p::{'$'.join([*within, type_])}::{name}")


def pools(*encapsulations: str) -> PlannedResource:
    """Calico's Installation with one pool for each encapsulation."""
    made = [{"name": f"pool{n}", "encapsulation": word} for n, word in enumerate(encapsulations)]
    spec = {"calicoNetwork": {"ipPools": made}}
    return resource("kubernetes:operator.tigera.io/v1:Installation", "installation", {"spec": spec})


def pool(ipip: str | None, vxlan: str | None) -> PlannedResource:
    spec = {"ipipMode": ipip, "vxlanMode": vxlan}
    return resource("kubernetes:crd.projectcalico.org/v1:IPPool", "pool", {"metadata": {"name": "plain"}, "spec": spec})


def ingress(cidr: str, problem: str) -> Sample:
    broken = {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": cidr, "tags": TAGS}
    return Sample("no-open-ingress", INGRESS, broken, broken | {"cidrIpv4": "203.0.113.7/32"}, problem)


def inline(type_: str, **source: Any) -> Sample:
    rule = {"protocol": "tcp", "fromPort": 6443, "toPort": 6443}
    good = {"ingress": [rule | {"cidrBlocks": ["203.0.113.0/24"]}], "egress": [rule | source], "tags": TAGS}
    return Sample("no-open-ingress", type_, good | {"ingress": [*good["ingress"], rule | source]}, good, "tcp 6443")


def machine(rule: str, says: str, **broken: Any) -> Sample:
    return Sample(rule, INSTANCE, MACHINE | broken, MACHINE, says)


def metadata(says: str, **options: Any) -> Sample:
    return machine("imds-v2", says, metadataOptions=MACHINE["metadataOptions"] | options)


def secret(text: str, what: str) -> Sample:
    return machine("no-secret-in-user-data", f"userData holds {what}", userData=text)


def check_off(within: tuple[str, ...], *stack: PlannedResource) -> Sample:
    on, off = MACHINE | {"sourceDestCheck": True}, MACHINE | {"sourceDestCheck": False}
    if stack:
        return Sample("source-dest-check-for-pods", INSTANCE, on, off, "without encapsulation", within, stack)
    return Sample("source-dest-check", INSTANCE, off, on, f"not a machine of {AWS_MACHINES}", within)


SAMPLES = [
    ingress("0.0.0.0/0", "the whole internet"),
    ingress("1.2.3.4/0", "the whole internet"),
    ingress("128.0.0.0/1", "wider than /8"),
    ingress("10.0.0.0/7", "wider than /8"),
    ingress("everybody", "not a range"),
    Sample(
        "no-open-ingress",
        INGRESS,
        {"ipProtocol": "-1", "cidrIpv6": "::/0", "tags": TAGS},
        {"ipProtocol": "-1", "cidrIpv6": "2001:db8::/64", "tags": TAGS},
        "lets ::/0 in (all protocols): that is the whole internet",
    ),
    Sample(
        "no-open-ingress",
        INGRESS,
        {"ipProtocol": "-1", "prefixListId": "pl-1", "tags": TAGS},
        {"ipProtocol": "-1", "referencedSecurityGroupId": "sg-1", "tags": TAGS},
        "a prefix list",
    ),
    Sample(
        "no-open-ingress",
        RULE,
        {"type": "ingress", "protocol": "-1", "cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"]},
        {"type": "egress", "protocol": "-1", "cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"]},
        "lets 0.0.0.0/0 in",
    ),
    Sample(
        "no-open-ingress",
        RULE,
        {"type": "ingress", "protocol": "tcp", "fromPort": 0, "toPort": 65535, "ipv6CidrBlocks": ["::/1"]},
        {"type": "ingress", "protocol": "tcp", "fromPort": 0, "toPort": 65535, "ipv6CidrBlocks": ["fd00::/8"]},
        "(tcp 0-65535): that is wider than /32",
    ),
    inline(GROUP, cidrBlocks=["0.0.0.0/0"]),
    inline(GROUP, ipv6CidrBlocks=["::/0"]),
    inline(GROUP, prefixListIds=["pl-1"]),
    inline("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", cidrBlocks=["0.0.0.0/0"]),
    metadata("httpTokens is optional", httpTokens="optional"),
    metadata("httpTokens is missing", httpTokens=None),
    metadata("HopLimit is 2", httpPutResponseHopLimit=2),
    metadata("HopLimit is missing", httpPutResponseHopLimit=None),
    machine("imds-v2", "httpTokens is missing", metadataOptions=None),
    Sample("imds-v2", LAUNCH_TEMPLATE, TEMPLATE | {"metadataOptions": {}}, TEMPLATE, "httpTokens is missing"),
    machine("encrypted-volumes", "rootBlockDevice is not encrypted", rootBlockDevice={"volumeSize": 8, "tags": TAGS}),
    machine(
        "encrypted-volumes",
        "ebsBlockDevices /dev/sdb is not encrypted",
        ebsBlockDevices=[{"deviceName": "/dev/sdb", "encrypted": False, "tags": TAGS}],
    ),
    Sample("encrypted-volumes", VOLUME, {"tags": TAGS}, {"tags": TAGS, "encrypted": True}, "the volume is not"),
    Sample(
        "encrypted-volumes",
        LAUNCH_TEMPLATE,
        TEMPLATE | {"blockDeviceMappings": [{"deviceName": "/dev/sda1", "ebs": {"volumeSize": 8}}]},
        TEMPLATE | {"blockDeviceMappings": [{"deviceName": "/dev/sda1", "ebs": {"encrypted": "true"}}]},
        "/dev/sda1 is not encrypted",
    ),
    check_off(()),
    check_off((NETWORK,)),
    check_off((LAB, AWS_MACHINES), pools("VXLAN", "None")),
    check_off((LAB, AWS_MACHINES), pools("VXLANCrossSubnet")),
    check_off((LAB, AWS_MACHINES), pools("IPIPCrossSubnet")),
    check_off((LAB, AWS_MACHINES), pool("Never", "Never")),
    check_off((LAB, AWS_MACHINES), pool("CrossSubnet", None)),
    machine("owner-tags", "tags without cni-lab:stack and cni-lab:owner", tags=None),
    machine("owner-tags", "tags without cni-lab:owner:", tags={"cni-lab:stack": "s", "cni-lab:owner": ""}),
    machine("owner-tags", "rootBlockDevice.tags without", rootBlockDevice={"encrypted": True}),
    Sample("owner-tags", "aws:s3/bucket:Bucket", {}, {"tags": TAGS}, "tags without"),
    Sample(
        "expiry-tag",
        VOLUME,
        {"encrypted": True, "tags": TAGS},
        {"encrypted": True, "tags": TAGS | {"cni-lab:ttl-hours": "4"}},
        "tags: cni-lab:ttl-hours is missing, and the stack lives 4 hours",
        stack=(resource(LAB, "lab", {"ttlHours": 4.0}),),
    ),
    Sample(
        "expiry-tag",
        VOLUME,
        {"encrypted": True, "tags": TAGS | {"cni-lab:ttl-hours": "5"}},
        {"encrypted": True, "tags": TAGS | {"cni-lab:ttl-hours": "4"}},
        "tags: cni-lab:ttl-hours is 5, and the stack lives 4 hours",
        stack=(resource("aws:ec2/vpc:Vpc", "vpc", {"tags": TAGS | {"cni-lab:ttl-hours": "4"}}),),
    ),
    secret(f"#cloud-config\nssh_keys: {{ed25519_private: '{KEY}'}}", "a private key"),
    secret("kubeadm join --token abcdef.0123456789abcdef 10.0.1.100:6443", "a kubeadm token"),
    secret("certificateKey: " + "0f" * 32, "kubeadm's certificate key"),
    secret("users:\n  - name: me\n    passwd: $6$rounds", "a password"),
    secret("export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
    secret("    client-key-data: LS0t", "the key of a kubeconfig"),
    secret("git clone https://ghp_" + "a1" * 18 + "@github.com/x/y", "a GitHub token"),
    machine("no-secret-in-user-data", "made from a secret", userData="<secret>"),
    machine(
        "no-secret-in-user-data",
        "userDataBase64 holds a private key",
        userDataBase64=base64.b64encode(gzip.compress(KEY.encode())).decode(),
    ),
    Sample(
        "no-secret-in-user-data",
        LAUNCH_TEMPLATE,
        TEMPLATE | {"userData": base64.b64encode(KEY.encode()).decode()},
        TEMPLATE | {"userData": base64.b64encode(b"#!/bin/sh\n").decode()},
        "userData holds a private key",
    ),
    machine("instance-kinds", "p5.48xlarge is not allowed", instanceType="p5.48xlarge"),
    Sample("instance-kinds", SPOT, MACHINE | {"instanceType": "m5.metal"}, MACHINE, "m5.metal is not allowed"),
    machine("public-addresses", "asks for a public address outside", associatePublicIpAddress=True),
    Sample(
        "public-addresses",
        LAUNCH_CONFIGURATION,
        MACHINE | {"associatePublicIpAddress": True},
        MACHINE | {"associatePublicIpAddress": False},
        "asks for a public address outside",
    ),
    Sample(
        "public-addresses",
        LAUNCH_TEMPLATE,
        TEMPLATE | {"networkInterfaces": [{"associatePublicIpAddress": "true"}]},
        TEMPLATE | {"networkInterfaces": [{"associatePublicIpAddress": "false"}]},
        "asks for a public address outside",
    ),
    Sample(
        "public-addresses",
        "aws:ec2/subnet:Subnet",
        {"mapPublicIpOnLaunch": True, "tags": TAGS},
        {"mapPublicIpOnLaunch": False, "tags": TAGS},
        "every machine in it",
        (LAB, NETWORK),
    ),
    Sample(
        "public-addresses",
        "aws:lb/loadBalancer:LoadBalancer",
        {"tags": TAGS},
        {"internal": True, "tags": TAGS},
        "is not internal",
    ),
    Sample(
        "public-addresses",
        "aws:ec2/natGateway:NatGateway",
        {"tags": TAGS},
        {"connectivityType": "private", "tags": TAGS},
        "is a public address",
    ),
]
