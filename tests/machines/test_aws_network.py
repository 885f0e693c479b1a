"""The VPC: what exists on moto after an up, and which ingress rules each mode makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.machines.aws import Network, NetworkArgs
from components.spec.models import Lab
from engine.model import Deployment, ProgramError
from engine.run import run_program
from tests.support.aws_labs import INGRESS, TAGS, aws_lab, deploy, of_type
from tests.support.moto_ec2 import REGION, Cloud, cloud

ALWAYS = {"ssh-203.0.113.7-32", "api-203.0.113.7-32", "node-ssh", "node-api", "kubelet", "node-icmp", "typha"}


@pytest.fixture
def standing() -> Iterator[tuple[Cloud, Deployment]]:
    """The default lab after an up, for tests that change nothing."""
    with cloud() as aws:
        yield aws, deploy(aws_lab(), aws)[0]


def calico(encapsulation: str, **keys: Any) -> dict[str, Any]:
    bgp = "Enabled" if encapsulation == "None" or encapsulation.startswith("IPIP") else "Disabled"
    pool = {"name": "pool", "cidr": "10.244.0.0/16", "encapsulation": encapsulation}
    return {"bgp": bgp, "pools": [pool], **keys}


def rows(lab: Lab) -> dict[str, dict[str, Any]]:
    """The ingress rows of a preview by name, the network's own left out of it."""
    found = {r.name.removeprefix("network-"): r.inputs for r in of_type(deploy(lab)[0], INGRESS)}
    return {name: {k: v for k, v in row.items() if k not in {"tags", "description"}} for name, row in found.items()}


def only(items: list[Any]) -> Any:
    assert len(items) == 1, items
    return items[0]


def test_vpc_subnets_and_routes(standing: tuple[Cloud, Deployment]) -> None:
    aws, _ = standing
    mine = [{"Name": "tag:cni-lab:stack", "Values": ["test"]}]
    vpc = only(aws.ec2.describe_vpcs(Filters=mine)["Vpcs"])
    assert vpc["CidrBlock"] == "10.0.0.0/16"
    for attribute, key in [("enableDnsHostnames", "EnableDnsHostnames"), ("enableDnsSupport", "EnableDnsSupport")]:
        assert aws.ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute)[key]["Value"]

    subnets = aws.ec2.describe_subnets(Filters=mine)["Subnets"]
    assert {s["CidrBlock"] for s in subnets} == {"10.0.1.0/24", "10.0.2.0/24"}
    assert not any(s["MapPublicIpOnLaunch"] for s in subnets)
    assert {s["AvailabilityZone"] for s in subnets} == {"us-west-2a"}

    gateway = only(aws.ec2.describe_internet_gateways(Filters=mine)["InternetGateways"])
    assert gateway["Attachments"][0]["VpcId"] == vpc["VpcId"]
    table = only(aws.ec2.describe_route_tables(Filters=mine)["RouteTables"])
    assert {a["SubnetId"] for a in table["Associations"]} == {s["SubnetId"] for s in subnets}
    out = only([r for r in table["Routes"] if r["DestinationCidrBlock"] == "0.0.0.0/0"])
    assert out["GatewayId"] == gateway["InternetGatewayId"]


def test_a_replaced_network_is_deleted_before_the_new_one_is_made() -> None:
    """EC2 takes no subnet that overlaps another (InvalidSubnet.Conflict). It detaches no gateway while public addresses
    are in use, so the gateway is replaced in its turn: the engine deletes its dependents, the machines, before it."""
    made, _ = deploy(aws_lab())
    by_urn = {r.urn: r for r in made.resources}
    vpc = only(of_type(made, "aws:ec2/vpc:Vpc"))
    gateway = only(of_type(made, "aws:ec2/internetGateway:InternetGateway"))
    replaced = [vpc, gateway, *of_type(made, "aws:ec2/subnet:Subnet")]
    assert all(r.delete_before_replace for r in replaced) and len(replaced) == 4
    assert gateway.replace_on_changes == ("vpcId",) and gateway.property_dependencies["vpcId"] == (vpc.urn,)
    for instance in of_type(made, "aws:ec2/instance:Instance"):
        behind, stack = set(), [instance.urn]
        while stack:
            for urn in set(by_urn[stack.pop()].dependencies) - behind:
                behind.add(urn)
                stack.append(urn)
        assert gateway.urn in behind


def security_group_rules(aws: Cloud) -> list[dict[str, Any]]:
    """Every rule of the lab's VPC, whatever group it is in."""
    mine = [{"Name": "tag:cni-lab:stack", "Values": ["test"]}]
    vpc = only(aws.ec2.describe_vpcs(Filters=mine)["Vpcs"])["VpcId"]
    groups = aws.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    names = [{"Name": "group-id", "Values": [g["GroupId"] for g in groups]}]
    rules: list[dict[str, Any]] = aws.ec2.describe_security_group_rules(Filters=names)["SecurityGroupRules"]
    return rules


def test_nothing_is_open_to_the_world() -> None:
    with cloud() as aws:
        deploy(aws_lab({"operatorCidrs": ["203.0.113.7/32", "198.51.100.0/24"]}), aws)
        rules = security_group_rules(aws)
        incoming = [r for r in rules if not r["IsEgress"]]
        assert {r.get("CidrIpv4") for r in incoming} == {None, "203.0.113.7/32", "198.51.100.0/24"}
        assert not any("CidrIpv6" in r or "PrefixListId" in r for r in incoming)
        by_operators = {(r["CidrIpv4"], r["FromPort"]) for r in incoming if "CidrIpv4" in r}
        assert by_operators == {(c, p) for c in ("203.0.113.7/32", "198.51.100.0/24") for p in (22, 6443)}
        out = only([r for r in rules if r["IsEgress"]])
        assert (out["IpProtocol"], out["CidrIpv4"]) == ("-1", "0.0.0.0/0")


def test_the_default_security_group_is_empty(standing: tuple[Cloud, Deployment]) -> None:
    aws, _ = standing
    default = [g for g in aws.ec2.describe_security_groups()["SecurityGroups"] if g["GroupName"] == "default"]
    mine = only([g for g in default if any(t["Key"] == "cni-lab:stack" for t in g.get("Tags", []))])
    assert mine["IpPermissions"] == [] and mine["IpPermissionsEgress"] == []


def test_the_api_is_open_on_control_planes_only(standing: tuple[Cloud, Deployment]) -> None:
    aws, _ = standing
    groups = {
        tag["Value"]: g["GroupId"]
        for g in aws.ec2.describe_security_groups()["SecurityGroups"]
        for tag in g.get("Tags", [])
        if tag["Key"] == "Name"
    }
    api = [r for r in security_group_rules(aws) if not r["IsEgress"] and r["FromPort"] == 6443]
    assert {r["GroupId"] for r in api} == {groups["network-control-plane"]}
    from_nodes = only([r for r in api if "CidrIpv4" not in r])
    assert from_nodes["ReferencedGroupInfo"]["GroupId"] == groups["network-nodes"]


@pytest.mark.parametrize(
    ("keys", "more"),
    [
        (calico("VXLAN"), {"vxlan"}),
        (calico("IPIP"), {"bgp", "ipip"}),
        (calico("None"), {"bgp", "pods-pool"}),
        (calico("VXLANCrossSubnet"), {"vxlan", "pods-pool"}),
        (calico("IPIPCrossSubnet"), {"bgp", "ipip", "pods-pool"}),
        (calico("VXLAN", wireguard=True), {"vxlan", "wireguard"}),
        (calico("VXLAN", bgp="Enabled"), {"vxlan", "bgp"}),
    ],
)
def test_ingress_rules_by_mode(keys: dict[str, Any], more: set[str]) -> None:
    assert set(rows(aws_lab(calico=keys))) == ALWAYS | more


def test_fields_of_ingress_rules() -> None:
    found = rows(aws_lab(calico=calico("IPIPCrossSubnet", wireguard=True, linuxDataplane="Iptables")))
    unknown = "<known after up>"
    nodes = {"referencedSecurityGroupId": unknown, "securityGroupId": unknown}
    assert found["ipip"] == {"ipProtocol": "4", **nodes}, "protocol 4 has no ports"
    assert found["bgp"] == {"ipProtocol": "tcp", "fromPort": 179, "toPort": 179, **nodes}
    assert found["wireguard"] == {"ipProtocol": "udp", "fromPort": 51820, "toPort": 51821, **nodes}
    assert found["node-icmp"] == {"ipProtocol": "icmp", "fromPort": -1, "toPort": -1, **nodes}
    assert found["pods-pool"] == {"ipProtocol": "-1", "cidrIpv4": "10.244.0.0/16", "securityGroupId": unknown}


def test_a_switch_of_mode_changes_only_its_own_rules() -> None:
    vxlan = rows(aws_lab(calico=calico("VXLAN", bgp="Enabled")))
    ipip = rows(aws_lab(calico=calico("IPIP")))
    assert set(vxlan) - set(ipip) == {"vxlan"} and set(ipip) - set(vxlan) == {"ipip"}
    assert all(vxlan[name] == ipip[name] for name in set(vxlan) & set(ipip))


def test_pod_addresses_are_let_in_only_for_pools_that_send_them() -> None:
    pools = [
        {"name": "plain", "cidr": "10.244.0.0/17", "encapsulation": "None"},
        {"name": "tunnel", "cidr": "10.244.128.0/17", "encapsulation": "VXLAN"},
    ]
    found = rows(aws_lab(calico={"bgp": "Enabled", "pools": pools}))
    assert {name for name in found if name.startswith("pods")} == {"pods-plain"}


def test_a_type_that_no_zone_offers_is_named() -> None:
    lab = aws_lab({"instanceType": "x9.huge"})
    with (
        pytest.raises(ProgramError, match=r"machines\.instanceType: x9\.huge — no zone .* Fix: choose another type"),
        cloud() as aws,
    ):
        run_program(
            lambda: Network("network", NetworkArgs(lab, TAGS)) and None,
            config={"aws:region": REGION},
            dry_run=False,
            create=aws.create,
            invoke=aws.invoke,
            timeout_seconds=60,
        )


def test_subnets_are_in_no_local_or_wavelength_zone() -> None:
    """EC2 names them too in an account that opted in. They have few instance types, and no NAT gateway."""
    zones = ["us-west-2-lax-1a", "us-west-2-wl1-las-wlz-1", "us-west-2b", "us-west-2c"]
    with cloud() as aws:
        answer = aws.invoke

        def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
            return {"locations": zones} if token.endswith(":getInstanceTypeOfferings") else answer(token, args)

        aws.invoke = invoke  # type: ignore[method-assign]
        deploy(aws_lab(), aws)
        mine = [{"Name": "tag:cni-lab:stack", "Values": ["test"]}]
        assert {s["AvailabilityZone"] for s in aws.ec2.describe_subnets(Filters=mine)["Subnets"]} == {"us-west-2b"}


def test_a_subnet_is_in_the_zone_that_the_file_names() -> None:
    with cloud() as aws:
        deploy(aws_lab(network={"zones": {"workers": "us-west-2c"}}), aws)
        mine = [{"Name": "tag:cni-lab:stack", "Values": ["test"]}]
        found = {s["CidrBlock"]: s["AvailabilityZone"] for s in aws.ec2.describe_subnets(Filters=mine)["Subnets"]}
    assert found == {"10.0.1.0/24": "us-west-2a", "10.0.2.0/24": "us-west-2c"}


PRIVATE = {"workerAccess": "InstanceConnect"}


def test_private_workers_reach_the_internet_through_a_nat_gateway() -> None:
    with cloud() as aws:
        deploy(aws_lab(PRIVATE), aws)
        mine = [{"Name": "tag:cni-lab:stack", "Values": ["test"]}]
        subnets = {s["CidrBlock"]: s["SubnetId"] for s in aws.ec2.describe_subnets(Filters=mine)["Subnets"]}
        nat = only(aws.ec2.describe_nat_gateways()["NatGateways"])
        assert nat["SubnetId"] == subnets["10.0.1.0/24"], "its own route leads to the internet gateway"
        out = {}
        for table in aws.ec2.describe_route_tables(Filters=mine)["RouteTables"]:
            route = only([r for r in table["Routes"] if r["DestinationCidrBlock"] == "0.0.0.0/0"])
            out |= {a["SubnetId"]: route for a in table["Associations"] if "SubnetId" in a}
        assert out[subnets["10.0.2.0/24"]]["NatGatewayId"] == nat["NatGatewayId"]
        assert out[subnets["10.0.1.0/24"]]["GatewayId"].startswith("igw-")
        assert len(aws.ec2.describe_addresses()["Addresses"]) == 2
        # The addresses of instances and of the gateway are requested, so that none can take another's.
        gateway = only(of_type(deploy(aws_lab(PRIVATE))[0], "aws:ec2/natGateway:NatGateway"))
        assert gateway.inputs["privateIp"] == "10.0.1.254"


def test_the_nat_gateways_address_is_no_nodes() -> None:
    nodes = [
        {"name": "cp", "role": "control-plane", "subnet": "control", "address": "10.0.1.254"},
        {"name": "w", "subnet": "workers", "address": "10.0.2.254"},
    ]
    gateway = only(of_type(deploy(aws_lab(PRIVATE, nodes=nodes))[0], "aws:ec2/natGateway:NatGateway"))
    assert gateway.inputs["privateIp"] == "10.0.1.253"


def test_ssh_to_private_workers_is_open_to_the_endpoint_and_the_nodes_only() -> None:
    with cloud() as aws:
        made, _ = deploy(aws_lab(PRIVATE), aws)
        names = {
            g["GroupId"]: tag["Value"]
            for g in aws.ec2.describe_security_groups()["SecurityGroups"]
            for tag in g.get("Tags", [])
            if tag["Key"] == "Name"
        }
        ssh = {
            (names[r["GroupId"]], r.get("CidrIpv4") or names[r["ReferencedGroupInfo"]["GroupId"]])
            for r in security_group_rules(aws)
            if r["FromPort"] == 22 and not r["IsEgress"]
        }
        assert ssh == {
            ("network-control-plane", "203.0.113.7/32"),
            ("network-nodes", "network-nodes"),
            ("network-nodes", "endpoint"),
        }
        endpoint = only(of_type(made, "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint"))
        behind = {urn.split("::")[-1] for urn in endpoint.dependencies if "aws:ec2/instance" in urn}
        assert behind == {"machines-ip-10-0-2-200", "machines-ip-10-0-2-201"}, "EC2 chooses its address after theirs"
        assert endpoint.custom_timeouts == {"create": "20m", "delete": "20m"}, "the provider gives up after 10 minutes"


def test_public_workers_have_neither_endpoint_nor_nat_gateway() -> None:
    kinds = {r.type for r in deploy(aws_lab())[0].resources}
    assert not {kind for kind in kinds if "natGateway" in kind or "nstanceConnect" in kind}


@pytest.mark.parametrize(
    ("machines", "last", "address"),
    [({}, 12, "10.0.1.254"), ({}, 254, "10.0.1.253"), (PRIVATE, 12, "10.0.1.253"), (PRIVATE, 253, "10.0.1.252")],
)
def test_the_load_balancers_address_is_no_nodes_and_not_the_nat_gateways(
    machines: dict[str, Any], last: int, address: str
) -> None:
    """EC2 would choose any free address: that of a control plane which is launched in the same minute."""
    nodes = [
        {"name": f"cp{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{i}"}
        for i in (10, 11, last)
    ]
    nodes.append({"name": "w", "subnet": "workers", "address": "10.0.2.10"})
    made, _ = deploy(aws_lab(machines, nodes=nodes), balancer=True)
    balancer = only(of_type(made, "aws:lb/loadBalancer:LoadBalancer"))
    assert only(balancer.inputs["subnetMappings"])["privateIpv4Address"] == address
    # The balancers of labs made earlier have `subnets`. Another one would have another name.
    assert set(balancer.ignore_changes) == {"subnetMappings", "subnets"}


def test_several_control_planes_have_a_load_balancer() -> None:
    nodes = [
        {"name": f"cp{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.10{i}"} for i in range(3)
    ]
    with cloud() as aws:
        made, machines = deploy(aws_lab(nodes=nodes), aws, balancer=True)
        balancer = only(aws.elb.describe_load_balancers()["LoadBalancers"])
        assert balancer["Scheme"] == "internal" and balancer["Type"] == "network"
        assert made.outputs["host"] == balancer["DNSName"]
        listener = only(aws.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"])
        assert (listener["Protocol"], listener["Port"]) == ("TCP", 6443)
        group = only(aws.elb.describe_target_groups()["TargetGroups"])
        assert (group["HealthCheckProtocol"], group["HealthCheckPath"]) == ("HTTPS", "/readyz")
        attributes = aws.elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
        assert {"Key": "preserve_client_ip.enabled", "Value": "false"} in attributes
        targets = aws.elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
        instances = {i["InstanceId"] for r in aws.ec2.describe_instances()["Reservations"] for i in r["Instances"]}
        assert {t["Target"]["Id"] for t in targets} == instances and len(instances) == 3
        # The balancer's name must not depend on a machine, as it goes into the first control plane's certificate.
        by_urn = {r.urn: r for r in made.resources}
        load_balancer = only(of_type(made, "aws:lb/loadBalancer:LoadBalancer"))
        behind, stack = set(), [load_balancer.urn]
        while stack:
            for urn in set(by_urn[stack.pop()].dependencies) - behind:
                behind.add(urn)
                stack.append(urn)
        assert not any("aws:ec2/instance:Instance" in urn for urn in behind)
        assert machines.keys() == {"cp0", "cp1", "cp2"}
