"""For each fault: how hard it is, how a user reports it, and the hints from layer to layer, the last of which mends it.

The commands run on a node by `./lab ssh`, on a deployed lab and on a sandbox alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import quote

from components.spec import addresses
from components.spec.modes import IPIP, VXLAN, Tunnel
from components.verify.exercise.model import Hint
from components.verify.expect import pod as expect_pod
from components.verify.expect.egress import firewall_of
from components.verify.expect.multus import MULTUS_FILE
from components.verify.faults.model import Symptoms, Target
from components.verify.model import ObservedLab, Pod, tunnel_mac

_COMMENT = '-m comment --comment "cni-lab fault"'


@dataclass(frozen=True)
class Case:
    """One fault at one place. `source`, `destination`: the two ends of a walk that shows it, as far as there are
    any."""

    lab: ObservedLab
    target: Target
    source: Pod | None
    destination: Pod | None

    @classmethod
    def of(cls, lab: ObservedLab, target: Target, wanted: Symptoms) -> Case:
        by_id = {pod.id: pod for pod in lab.pods}
        first, second = wanted.walk or ("", "")
        return cls(lab, target, by_id.get(first, target.pod), by_id.get(second))

    @property
    def node(self) -> str:
        return self.target.node


@dataclass(frozen=True)
class Lesson:
    """`level`: from 1, a look at one place, to 3, what no ping shows. `report` and `hints` of a case. `heals_soon`:
    Felix undoes it within minutes, so on a cluster there is no time to find it."""

    level: int
    report: Callable[[Case], str]
    hints: Callable[[Case], list[Hint]]
    heals_soon: bool = False


# --- commands ---------------------------------------------------------------------------------------------------------


def _ssh(node: str, line: str) -> str:
    return f"./lab ssh STACK {node} -- {quote(line)}"


def _netns(pod: Pod) -> str:
    """The name of a pod's network namespace, as a part of a shell line on its node. CRI-O names it by a UUID."""
    return f'$(ip link show {pod.interface} | grep -oE "[0-9a-f-]{{36}}")'


def _in_pod(pod: Pod, arguments: str) -> str:
    """`ip` inside a pod."""
    return _ssh(pod.node, f"ip -n {_netns(pod)} {arguments}")


# --- layers -----------------------------------------------------------------------------------------------------------


def _pod_layer(pod: Pod) -> list[Hint]:
    return [
        Hint(f"Begin in the pod: which next hop does {pod.id} use, and on which device?", _in_pod(pod, "route")),
        Hint(f"Does it find its gateway? {addresses.GATEWAY} must be at ee:ee:ee:ee:ee:ee.", _in_pod(pod, "neigh")),
    ]


def _ends(case: Case) -> tuple[Pod, str]:
    """The sending pod and the address that it does not reach."""
    assert case.source is not None
    return case.source, case.destination.address if case.destination else "198.51.100.1"


def _node_layer(node: str, address: str) -> list[Hint]:
    return [
        Hint(
            f"The pod is in order. Now {node}: by which device and next hop does it send to {address}?",
            _ssh(node, f"ip route get {address}"),
        )
    ]


def _way_out(case: Case) -> list[Hint]:
    """Pod and node of the sender, which are the first two layers of every lost ping."""
    source, address = _ends(case)
    return [*_pod_layer(source), *_node_layer(source.node, address)]


def _pair(case: Case) -> str:
    source, address = _ends(case)
    to = f"{case.destination.id} on {case.destination.node}" if case.destination else address
    return f"Since this morning {source.id} on {source.node} does not reach {to}. Nobody changed anything, they say."


def _outside(case: Case) -> str:
    source, _ = _ends(case)
    return (
        f"Since this morning {source.id} on {source.node} reaches nothing outside the cluster. "
        "Other pods of the cluster it does reach."
    )


def _gateway_of(pod: Pod, case: Case) -> str:
    route = expect_pod.route_for(case.lab, pod, "198.51.100.1").expected or {}
    return f"default via {route.get('via')} dev {route.get('dev')}"


# --- each fault -------------------------------------------------------------------------------------------------------


def _dropped(tunnel: Tunnel) -> Callable[[Case], list[Hint]]:
    port = f" --dport {tunnel.ports[0]}" if tunnel.ports else ""

    def hints(case: Case) -> list[Hint]:
        return [
            *_way_out(case),
            Hint(
                f"The packet leaves by {tunnel.device}. Does it arrive? Look at the packet filter of {case.node}, "
                "in the table that comes before all others.",
                _ssh(case.node, "iptables-save -t raw"),
            ),
            Hint(
                f"A rule drops {tunnel.packet_title}. Delete it.",
                _ssh(case.node, f"iptables -t raw -D PREROUTING -p {tunnel.protocol}{port} {_COMMENT} -j DROP"),
            ),
        ]

    return hints


def _fdb(case: Case) -> list[Hint]:
    mac, peer = case.target.variables["MAC"], case.lab.addresses[case.target.peer]
    return [
        *_way_out(case),
        Hint(
            f"The route leads into {VXLAN.device}. Its neighbours are MAC addresses: is there one for every peer?",
            _ssh(case.node, f"ip neigh show dev {VXLAN.device}"),
        ),
        Hint(
            "And each of these MAC addresses needs an outer address. Compare, line by line.",
            _ssh(case.node, f"bridge fdb show dev {VXLAN.device}"),
        ),
        Hint(
            f"{mac}, {case.target.peer}, has none. Add it.",
            _ssh(case.node, f"bridge fdb add {mac} dev {VXLAN.device} dst {peer} self permanent"),
        ),
    ]


def _neighbour(case: Case) -> list[Hint]:
    address, right = case.target.variables["ADDRESS"], tunnel_mac(case.target.peer)
    return [
        *_way_out(case),
        Hint(
            f"The route leads into {VXLAN.device}, to a next hop. At which MAC address is that?",
            _ssh(case.node, f"ip neigh show dev {VXLAN.device}"),
        ),
        Hint(
            f"Compare with the MAC address that {case.target.peer} really has there.",
            _ssh(case.target.peer, f"ip link show {VXLAN.device}"),
        ),
        Hint(
            f"{case.node} has an old one for {address}. Correct it.",
            _ssh(case.node, f"ip neigh replace {address} lladdr {right} dev {VXLAN.device} nud permanent"),
        ),
    ]


def _proxy_arp(case: Case) -> list[Hint]:
    pod = case.target.pod
    assert pod is not None
    path = f"/proc/sys/net/ipv4/conf/{pod.interface}/proxy_arp"
    return [
        *_pod_layer(pod),
        Hint(
            f"No interface has {addresses.GATEWAY}: the host side of the veth answers for it. May it?",
            _ssh(case.node, f"cat {path}"),
        ),
        Hint("It must be 1.", _ssh(case.node, f"echo 1 >{path}")),
    ]


def _forwarding(case: Case) -> list[Hint]:
    path = "/proc/sys/net/ipv4/ip_forward"
    pod = next((it for it in (case.source, case.destination) if it and it.node == case.node), None)
    first = _pod_layer(pod) if pod else []
    return [
        *first,
        Hint(
            f"Is it one pod, or all of {case.node}? A node that is no router passes nothing on, and answers no ARP for "
            "others.",
            _ssh(case.node, f"cat {path}"),
        ),
        Hint("It must be 1.", _ssh(case.node, f"echo 1 >{path}")),
    ]


def _reverse_path(case: Case) -> list[Hint]:
    path = "/proc/sys/net/ipv4/conf/all/rp_filter"
    source, _ = _ends(case)
    return [
        *_way_out(case),
        Hint(
            f"The packet reaches {case.node}. By which device would the answer to {source.address} leave there? By the "
            "same?",
            _ssh(case.node, f"ip route get {source.address}"),
        ),
        Hint(
            "It comes in by one device, and its source's route leads to another. What does the kernel say to that?",
            _ssh(case.node, f"cat {path}"),
        ),
        Hint("1 is strict: drop. It must be 0, or 2 (loose).", _ssh(case.node, f"echo 0 >{path}")),
    ]


def _nat(case: Case) -> list[Hint]:
    cidr = case.target.variables["CIDR"]
    if case.lab.spec.calico.linux_dataplane == "Nftables":
        chain = "ip calico nat-cali-nat-outgoing"
        look = f"nft -a list chain {chain}"
        handle = f"$(nft -a list chain {chain} | sed -n 's/.*cni-lab fault.* handle //p')"
        undo = f"nft delete rule {chain} handle {handle}"
    else:
        look = "iptables-save -t nat | grep cali-nat-outgoing"
        undo = f"iptables -t nat -D cali-nat-outgoing -s {cidr} {_COMMENT} -j RETURN"
    return [
        *_way_out(case),
        Hint(
            "The packet leaves the node. With which source? Outside, nobody has a route to a pod. Look at the rules "
            "for natOutgoing, in their order.",
            _ssh(case.node, look),
        ),
        Hint(f"A rule lets {cidr} pass over the masquerading. Delete it.", _ssh(case.node, undo)),
    ]


def _mtu(case: Case) -> list[Hint]:
    pod, right = case.target.pod, addresses.pod_mtu(case.lab.spec)
    assert pod is not None
    other = case.destination.address if case.destination else str(addresses.GATEWAY)
    large = f"ip netns exec {_netns(pod)} ping -c 1 -W 1 -M dont -s {right - 18} {other} || true"
    return [
        Hint("A ping passes. What about a large one?", _ssh(case.node, large)),
        Hint(
            "Small ones pass and large ones vanish: compare MTUs. The pod's end first.", _in_pod(pod, "link show eth0")
        ),
        Hint("Now the other end of the same veth.", _ssh(case.node, f"ip link show {pod.interface}")),
        Hint(
            f"The pod may send packets that its other end does not take. {right} is right for this encapsulation.",
            _in_pod(pod, f"link set eth0 mtu {right}"),
        ),
    ]


def _slow(case: Case) -> list[Hint]:
    nic = case.target.variables["DEVICE"]
    other = next(address for name, address in case.lab.addresses.items() if name != case.node)
    return [
        Hint("Is it the pods, or the nodes too?", _ssh(case.node, f"ping -c 3 -i 0.3 {other} || true")),
        Hint(
            f"It is the node's own link. What queues are there on {nic}?", _ssh(case.node, f"tc qdisc show dev {nic}")
        ),
        Hint("netem delays and loses on purpose. Remove it.", _ssh(case.node, f"tc qdisc del dev {nic} root")),
    ]


def _multus(case: Case) -> list[Hint]:
    other = next(name for name in case.lab.nodes if name != case.node)
    return [
        Hint("CRI-O takes the first usable file. Which is that?", _ssh(case.node, "ls -l /etc/cni/net.d")),
        Hint("One has no bytes. What is in it on another node?", _ssh(other, f"cat {MULTUS_FILE}")),
        Hint(
            "It is the same on every node: copy it.",
            f"./lab ssh STACK {other} -- cat {MULTUS_FILE} | ./lab ssh STACK {case.node} -- tee {MULTUS_FILE}",
        ),
    ]


def _renamed(case: Case) -> list[Hint]:
    file = case.target.variables["FILE"]
    return [
        Hint("Multus looks for the network in a file.", _ssh(case.node, "ls -l /etc/cni/multus/net.d")),
        Hint(
            "It reads files that end in .conf, .json and .conflist. Give it its name back.",
            _ssh(case.node, f"mv {file}.bak {file}"),
        ),
    ]


def _range(case: Case) -> list[Hint]:
    file, old, new = (case.target.variables[name] for name in ("FILE", "OLD", "NEW"))
    return [
        Hint("Who gives which addresses of the node's block, and are they apart?", "./lab addresses STACK"),
        Hint("What does host-local think that it may give?", _ssh(case.node, f"cat {file}")),
        Hint(
            f"Its range begins at {new}, among calico-ipam's. It began at {old}.",
            _ssh(case.node, f"sed -i 's/{new}/{old}/' {file}"),
        ),
    ]


def _default_route(case: Case) -> list[Hint]:
    pod = case.target.pod
    assert pod is not None
    return [
        _pod_layer(pod)[0],
        Hint("Who has the address of that next hop? Look at the pod's own addresses.", _in_pod(pod, "-4 addr")),
        Hint("It is the pod's own: the packets go nowhere.", _in_pod(pod, f"route replace {_gateway_of(pod, case)}")),
    ]


def _firewall(case: Case) -> tuple[Pod, Pod]:
    """The pod behind the firewall, and the firewall's."""
    user = case.target.pod
    assert user is not None
    _, pod = firewall_of(case.lab, user) or (None, None)
    assert pod is not None
    return user, pod


def _firewall_gone(case: Case) -> list[Hint]:
    user, firewall = _firewall(case)
    device = case.target.variables["DEVICE"]
    found = firewall_of(case.lab, user)
    assert found is not None
    inside = f"ip -n {_netns(firewall)}"
    lines = [f"{inside} link set {device} up"]
    for route in found[0].network.routes:
        via = f" via {route.gateway}" if route.gateway else ""
        lines.append(f"{inside} route prepend {route.dst}{via} dev {device}")
    return [
        _pod_layer(user)[0],
        Hint("Its gateway is another pod. Is it found?", _in_pod(user, "neigh")),
        Hint(f"The gateway is {firewall.id}. How is its end of the bridge?", _in_pod(firewall, "addr")),
        Hint(f"{device} is down, and its routes went with it. Bring both back.", _ssh(case.node, " && ".join(lines))),
    ]


def _firewall_drops(case: Case) -> list[Hint]:
    user, firewall = _firewall(case)
    device = case.target.variables["DEVICE"]
    enter = f"ip netns exec {_netns(firewall)}"
    return [
        _pod_layer(user)[0],
        Hint(
            "Its gateway is another pod, which answers a ping. Does it forward, too?",
            _ssh(case.node, f"{enter} cat /proc/sys/net/ipv4/ip_forward"),
        ),
        Hint("It may. What do its rules say to what it forwards?", _ssh(case.node, f"{enter} iptables-save -t filter")),
        Hint(
            "The first rule drops all that comes from the bridge.",
            _ssh(case.node, f"{enter} iptables -D FORWARD -i {device} {_COMMENT} -j DROP"),
        ),
    ]


def _source_dest(case: Case) -> list[Hint]:
    return [
        *(_way_out(case) if case.source else []),
        Hint(
            "The packet leaves the node with a pod's address, and without a tunnel. What does EC2 say to that?",
            "./lab verify STACK",
        ),
        Hint("The instance's source/destination check must be off.", "./lab up STACK --refresh"),
    ]


def _service(case: Case) -> list[Hint]:
    namespace, _, name = case.target.service.partition("/")
    kubectl = f"kubectl --kubeconfig .lab/exercises/kubeconfig -n {namespace}"
    patch = f'{{"spec":{{"selector":{{"app":"{name}"}}}}}}'
    # Columns of our own: a sandbox's API has no table for a kind, only its name and age.
    addresses_of_slice = "-o " + quote("custom-columns=NAME:.metadata.name,ENDPOINTS:.endpoints[*].addresses[*]")
    labels = "-o custom-columns=NAME:.metadata.name,SELECTOR:.spec.selector"
    return [
        Hint("Get a kubeconfig.", "./lab kubeconfig STACK --out .lab/exercises/kubeconfig --force"),
        Hint("Do the pods run, and with which labels?", f"{kubectl} get pods --show-labels"),
        Hint("To which addresses does the Service lead?", f"{kubectl} get endpointslices {addresses_of_slice}"),
        Hint("To none. By which labels does it look for its pods?", f"{kubectl} get service {name} {labels}"),
        Hint("No pod has these labels.", f"{kubectl} patch service {name} --type merge -p {quote(patch)}"),
    ]


def _new_pods(case: Case, what: str) -> str:
    return f"Since this morning new pods on {case.node} {what}. Those that ran before are fine."


LESSONS: Mapping[str, Lesson] = {
    "source-dest-check": Lesson(3, lambda case: _pair(case) if case.source else "Pods lose packets.", _source_dest),
    "vxlan-dropped": Lesson(2, _pair, _dropped(VXLAN)),
    "ipip-dropped": Lesson(2, _pair, _dropped(IPIP)),
    "fdb-gone": Lesson(2, _pair, _fdb, heals_soon=True),
    "stale-neighbour": Lesson(2, _pair, _neighbour, heals_soon=True),
    "proxy-arp-off": Lesson(1, _pair, _proxy_arp),
    "ip-forward-off": Lesson(
        1,
        lambda case: f"Since this morning the pods of {case.node} reach nobody, and nobody reaches them.",
        _forwarding,
    ),
    "rp-filter-strict": Lesson(3, _pair, _reverse_path),
    "nat-off": Lesson(2, _outside, _nat, heals_soon=True),
    "mtu-too-large": Lesson(
        3,
        lambda case: (
            f"Downloads of {case.target.pod.id if case.target.pod else 'a pod'} hang since this morning. "
            "It connects, and small answers come."
        ),
        _mtu,
    ),
    "link-slow": Lesson(2, lambda case: f"Since this morning everything to and from {case.node} is slow.", _slow),
    "multus-emptied": Lesson(3, lambda case: _new_pods(case, "come up without their second network"), _multus),
    "delegate-renamed": Lesson(3, lambda case: _new_pods(case, "stay in ContainerCreating"), _renamed),
    "range-moved": Lesson(3, lambda case: _new_pods(case, "get addresses that others have"), _range),
    "wrong-default-route": Lesson(1, _outside, _default_route),
    "firewall-gone": Lesson(2, _outside, _firewall_gone),
    "firewall-drops": Lesson(2, _outside, _firewall_drops),
    "service-without-endpoints": Lesson(
        1,
        lambda case: f"Since this morning clients of the Service {case.target.service} are refused. Its pods run.",
        _service,
    ),
}
