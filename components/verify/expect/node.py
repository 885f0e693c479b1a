"""What must be true of a node itself: Ready, known to Calico by the right address, forwarding, no packet filter in the
way."""

from __future__ import annotations

from collections.abc import Iterator

from components.spec import models
from components.spec.modes import Tunnel
from components.verify.model import Expectation, ObservedLab, OneOf, Repair, Topic


def node(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    """A node's own, in the order in which they are best read."""
    name = node.name
    yield Expectation(
        topic=Topic.NODE,
        key=name,
        expected={"Ready": "True", "pressure": "none"},
        sentence=f"node {name} is Ready, and has enough disk and memory",
        command=f"kubectl describe node {name}",
        because="kubelet, CRI-O and CNI all work; where disk or memory run out, kubelet evicts pods",
        cause="kubelet or CRI-O has stopped, CRI-O has no CNI configuration that it can use, or another program fills "
        "the node",
        advice="on the node: journalctl -u kubelet -u crio --since -10min; df -h; free -m",
        about=name,
    )
    prefix = observed.spec.network.subnets[node.subnet].prefixlen
    yield Expectation(
        topic=Topic.ANNOTATION,
        key=name,
        expected={"IPv4Address": f"{node.address}/{prefix}"},
        sentence=f"Calico has {node.address}/{prefix} as {name}'s address",
        command=f"kubectl get node {name} -o yaml | grep projectcalico.org",
        because="the node's address in the stack file, with its subnet's prefix length, which CrossSubnet goes by",
        cause="Calico chose another of the node's addresses (calico.nodeAddressAutodetection, calico.interface)",
        advice="set calico.interface to the right interface and run `./lab up STACK`",
        about=name,
    )
    yield Expectation(
        topic=Topic.IP_FORWARD,
        key="all",
        expected={"value": "1"},
        sentence=f"{name} forwards packets",
        command="sysctl net.ipv4.ip_forward",
        because="a node routes its pods' packets",
        cause="another file of sysctl's was loaded after the lab's",
        advice="find net.ipv4.ip_forward in /etc/sysctl.d, correct it, and run sysctl --system",
        node=name,
    )
    if mixed(observed.spec):
        for device in inbound_devices(observed, name):
            yield _loose(name, device)
    if name in observed.nics:
        yield _not_slowed(name, observed.nics[name])
    for tunnel in observed.spec.tunnels:
        yield _not_filtered(observed, name, tunnel)


def mixed(lab: models.Lab) -> bool:
    """Whether an answer may travel otherwise than the packet: between pools that have two ways."""
    return not lab.calico.wireguard and len(lab.encapsulations) > 1


def inbound_devices(observed: ObservedLab, node: str) -> list[str]:
    """By which devices packets of other nodes' pods come in."""
    tunnels = [tunnel.device for tunnel in observed.spec.tunnels if observed.has_device(node, tunnel)]
    return [observed.nics[node], *tunnels] if node in observed.nics else tunnels


def rp_filter_files(*devices: str) -> list[str]:
    """The settings of which the larger counts for a device: that of `all`, and its own."""
    return [f"/proc/sys/net/ipv4/conf/{name}/rp_filter" for name in ("all", *devices)]


def _loose(node: str, device: str) -> Expectation:
    files = rp_filter_files(device)
    return Expectation(
        topic=Topic.RP_FILTER,
        key=device,
        expected={"value": OneOf(("0", "2"))},
        sentence=f"{node} takes packets that come in by {device} although the answer leaves by another device",
        command=f"cat {' '.join(files)}",
        because="the pools have two ways between the nodes, and the destination's pool decides about each direction. "
        "The larger of the two values counts",
        cause="rp_filter is strict (1): the kernel drops what comes in by another device than its source's route",
        advice=f"write 0 into {' and '.join(files)}; find the file in /etc/sysctl.d that sets them; if `./lab break` "
        "did it: `./lab mend STACK`",
        node=node,
    )


def _not_slowed(node: str, nic: str) -> Expectation:
    return Expectation(
        topic=Topic.QUEUE,
        key=nic,
        expected={"netem": "no"},
        sentence=f"nothing delays or loses on purpose what {node} sends by {nic}",
        command=f"tc qdisc show dev {nic}",
        because="a queue of kind netem is for tests: it delays, loses or corrupts packets",
        cause="somebody tried a slow network with netem and left it",
        advice=f"tc qdisc del dev {nic} root; if `./lab break` did it: `./lab mend STACK`",
        node=node,
    )


def _not_filtered(observed: ObservedLab, node: str, tunnel: Tunnel) -> Expectation:
    what = tunnel.packet_title
    matching = f"grep -- '--dport {tunnel.ports[0]}'" if tunnel.ports else "grep -E -- '-p (4|ipencap|ipv4) '"
    command = f"iptables-save | {matching} | grep -E 'DROP|REJECT'"
    if observed.spec.calico.linux_dataplane == "Nftables":
        command = "nft list ruleset | grep -E 'drop|reject'"
    return Expectation(
        topic=Topic.FILTER,
        key=tunnel.packet,
        expected=None,
        sentence=f"no packet filter of {node} drops {what}",
        command=command,
        because=f"{tunnel.name} packets between nodes travel as {what}",
        cause=f"a firewall rule of the host drops {what}: pods of other nodes cannot be reached",
        advice="remove the rule that is shown (`./lab mend STACK` if `./lab break` made it)",
        node=node,
    )


def source_dest_check(node: models.Node) -> Expectation:
    """EC2's check is off on the node's instance."""
    return Expectation(
        topic=Topic.SOURCE_DEST,
        key=node.name,
        expected={"check": "off"},
        sentence=f"EC2 lets {node.name} send and receive packets that carry pods' addresses",
        command=f"aws ec2 describe-instances --filters Name=private-ip-address,Values={node.address} "
        "--query 'Reservations[].Instances[].SourceDestCheck'",
        because="with the source/destination check on, EC2 drops packets between pods that travel without a tunnel",
        cause="somebody switched the check on",
        repair=Repair.REFRESH,
        advice="if `./lab break` did it: `./lab mend STACK`",
        about=node.name,
    )


def interface_up(node: str, interface: str) -> Expectation:
    """For walks: the interface that a packet arrives at or leaves by."""
    return Expectation(
        topic=Topic.LINK,
        key=interface,
        expected={"up": "yes"},
        sentence=f"{interface} of {node} is up",
        command=f"ip link show {interface}",
        because="the node is on the network by this interface",
        cause="the interface was taken down",
        advice=f"ip link set {interface} up",
        node=node,
    )
