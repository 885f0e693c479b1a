"""For each fault: how hard it is, how a user reports it, and the hints from layer to layer. The last one repairs it.

The commands run on a node by `./lab ssh`, on a deployed lab and on a sandbox alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from shlex import quote

from components.calico.manifests import api_version
from components.spec import addresses
from components.spec.modes import IPIP, VXLAN, Tunnel
from components.verify.exercise.layers import (
    Case,
    Lesson,
    default_route_of,
    ends,
    in_pod,
    lost_outside,
    lost_pair,
    netns,
    pod_layer,
    ssh,
    way_out,
)
from components.verify.exercise.model import Hint
from components.verify.expect.egress import firewall_of
from components.verify.expect.multus import MULTUS_FILE
from components.verify.expect.node import rp_filter_files
from components.verify.model import Pod, tunnel_mac

_KUBECONFIG = "./lab kubeconfig STACK --out .lab/exercises/kubeconfig --force"
_COMMENT = '-m comment --comment "cni-lab fault"'


# --- each fault -------------------------------------------------------------------------------------------------------


def _dropped(tunnel: Tunnel) -> Callable[[Case], list[Hint]]:
    port = f" --dport {tunnel.ports[0]}" if tunnel.ports else ""

    def hints(case: Case) -> list[Hint]:
        return [
            *way_out(case),
            Hint(
                f"The packet leaves by {tunnel.device}. Does it arrive? Look at the packet filter of {case.node}, "
                "in the table that comes before all others.",
                ssh(case.node, "iptables-save -t raw"),
            ),
            Hint(
                f"A rule drops {tunnel.packet_title}. Delete it.",
                ssh(case.node, f"iptables -t raw -D PREROUTING -p {tunnel.protocol}{port} {_COMMENT} -j DROP"),
            ),
        ]

    return hints


def _fdb(case: Case) -> list[Hint]:
    mac, peer = case.target.variables["MAC"], case.lab.addresses[case.target.peer]
    return [
        *way_out(case),
        Hint(
            f"The route leads into {VXLAN.device}. Its neighbours are MAC addresses: is there one for every peer?",
            ssh(case.node, f"ip neigh show dev {VXLAN.device}"),
        ),
        Hint(
            "And each of these MAC addresses needs an outer address. Compare, line by line.",
            ssh(case.node, f"bridge fdb show dev {VXLAN.device}"),
        ),
        Hint(
            f"{mac}, {case.target.peer}, has none. Add it.",
            ssh(case.node, f"bridge fdb add {mac} dev {VXLAN.device} dst {peer} self permanent"),
        ),
    ]


def _neighbour(case: Case) -> list[Hint]:
    address, right = case.target.variables["ADDRESS"], tunnel_mac(case.target.peer)
    return [
        *way_out(case),
        Hint(
            f"The route leads into {VXLAN.device}, to a next hop. At which MAC address is that?",
            ssh(case.node, f"ip neigh show dev {VXLAN.device}"),
        ),
        Hint(
            f"Compare with the MAC address that {case.target.peer} really has there.",
            ssh(case.target.peer, f"ip link show {VXLAN.device}"),
        ),
        Hint(
            f"{case.node} has an old one for {address}. Correct it.",
            ssh(case.node, f"ip neigh replace {address} lladdr {right} dev {VXLAN.device} nud permanent"),
        ),
    ]


def _proxy_arp(case: Case) -> list[Hint]:
    pod = case.target.pod
    assert pod is not None
    path = f"/proc/sys/net/ipv4/conf/{pod.interface}/proxy_arp"
    return [
        *pod_layer(pod),
        Hint(
            f"No interface has {addresses.GATEWAY}: the host side of the veth answers for it. Is it allowed to?",
            ssh(case.node, f"cat {path}"),
        ),
        Hint("It must be 1.", ssh(case.node, f"echo 1 >{path}")),
    ]


def _forwarding(case: Case) -> list[Hint]:
    path = "/proc/sys/net/ipv4/ip_forward"
    pod = next((it for it in (case.source, case.destination) if it and it.node == case.node), None)
    first = pod_layer(pod) if pod else []
    return [
        *first,
        Hint(
            f"Is it one pod, or all of {case.node}? A node that does not route passes nothing on, and answers no ARP "
            "for others.",
            ssh(case.node, f"cat {path}"),
        ),
        Hint("It must be 1.", ssh(case.node, f"echo 1 >{path}")),
    ]


def _reverse_path(case: Case) -> list[Hint]:
    files = " ".join(rp_filter_files(*case.target.variables["DEVICES"].split()))
    source, _ = ends(case)
    return [
        *way_out(case),
        Hint(
            f"The packet reaches {case.node}. By which device would the answer to {source.address} leave there? By the "
            "same?",
            ssh(case.node, f"ip route get {source.address}"),
        ),
        Hint(
            "It comes in by one device, and its source's route leads to another. What does the kernel do then?",
            ssh(case.node, f"cat {files}"),
        ),
        Hint(
            "1 is strict: drop. It must be 0, or 2 (loose). Of `all` and the device the larger value counts.",
            ssh(case.node, f"echo 0 | tee {files}"),
        ),
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
        *way_out(case),
        Hint(
            "The packet leaves the node. With which source? Outside, nobody has a route to a pod. Look at the rules "
            "for natOutgoing, in their order.",
            ssh(case.node, look),
        ),
        Hint(f"A rule exempts {cidr} from masquerading. Delete it.", ssh(case.node, undo)),
    ]


def _mtu(case: Case) -> list[Hint]:
    pod, right = case.target.pod, addresses.pod_mtu(case.lab.spec)
    assert pod is not None
    other = case.destination.address if case.destination else str(addresses.GATEWAY)
    large = f"ip netns exec {netns(pod)} ping -c 1 -W 1 -M dont -s {right - 18} {other} || true"
    return [
        Hint("A ping passes. What about a large one?", ssh(case.node, large)),
        Hint(
            "Small ones pass and large ones are lost: compare MTUs. The pod's end first.", in_pod(pod, "link show eth0")
        ),
        Hint("Now the other end of the same veth.", ssh(case.node, f"ip link show {pod.interface}")),
        Hint(
            f"The pod may send packets that its other end does not take. {right} is right for this encapsulation.",
            in_pod(pod, f"link set eth0 mtu {right}"),
        ),
    ]


def _slow(case: Case) -> list[Hint]:
    nic = case.target.variables["DEVICE"]
    other = next(address for name, address in case.lab.addresses.items() if name != case.node)
    return [
        Hint("Is it the pods, or the nodes too?", ssh(case.node, f"ping -c 3 -i 0.3 {other} || true")),
        Hint(f"It is the node's own link. What queues are there on {nic}?", ssh(case.node, f"tc qdisc show dev {nic}")),
        Hint("netem delays and loses on purpose. Remove it.", ssh(case.node, f"tc qdisc del dev {nic} root")),
    ]


def _multus(case: Case) -> list[Hint]:
    other = next(name for name in case.lab.nodes if name != case.node)
    return [
        Hint("CRI-O takes the first usable file. Which is that?", ssh(case.node, "ls -l /etc/cni/net.d")),
        Hint("One has no bytes. What is in it on another node?", ssh(other, f"cat {MULTUS_FILE}")),
        Hint(
            "It is the same on every node: copy it.",
            f"./lab ssh STACK {other} -- cat {MULTUS_FILE} | ./lab ssh STACK {case.node} -- tee {MULTUS_FILE}",
        ),
    ]


def _renamed(case: Case) -> list[Hint]:
    file = case.target.variables["FILE"]
    return [
        Hint("Multus looks for the network in a file.", ssh(case.node, "ls -l /etc/cni/multus/net.d")),
        Hint(
            "It reads files that end in .conf, .json and .conflist. Give it its name back.",
            ssh(case.node, f"mv {file}.bak {file}"),
        ),
    ]


def _range(case: Case) -> list[Hint]:
    file, old, new = (case.target.variables[name] for name in ("FILE", "OLD", "NEW"))
    return [
        Hint("Who gives which addresses of the node's block, and are they apart?", "./lab addresses STACK"),
        Hint("Which addresses may host-local give?", ssh(case.node, f"cat {file}")),
        Hint(
            f"Its range begins at {new}, among calico-ipam's. It began at {old}.",
            ssh(case.node, f"sed -i 's/{new}/{old}/' {file}"),
        ),
    ]


def _default_route(case: Case) -> list[Hint]:
    pod = case.target.pod
    assert pod is not None
    return [
        pod_layer(pod)[0],
        Hint("Who has the address of that next hop? Look at the pod's own addresses.", in_pod(pod, "-4 addr")),
        Hint(
            "It is the pod's own: the packets go nowhere.", in_pod(pod, f"route replace {default_route_of(pod, case)}")
        ),
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
    inside = f"ip -n {netns(firewall)}"
    lines = [f"{inside} link set {device} up"]
    for route in found[0].network.routes:
        via = f" via {route.gateway}" if route.gateway else ""
        lines.append(f"{inside} route prepend {route.dst}{via} dev {device}")
    return [
        pod_layer(user)[0],
        Hint("Its gateway is another pod. Is it found?", in_pod(user, "neigh")),
        Hint(f"The gateway is {firewall.id}. How is its end of the bridge?", in_pod(firewall, "addr")),
        Hint(f"{device} is down, and its routes went with it. Bring both back.", ssh(case.node, " && ".join(lines))),
    ]


def _firewall_drops(case: Case) -> list[Hint]:
    user, firewall = _firewall(case)
    device = case.target.variables["DEVICE"]
    enter = f"ip netns exec {netns(firewall)}"
    return [
        pod_layer(user)[0],
        Hint(
            "Its gateway is another pod, which answers a ping. Does it forward, too?",
            ssh(case.node, f"{enter} cat /proc/sys/net/ipv4/ip_forward"),
        ),
        Hint(
            "It is allowed to. What do its rules do with what it forwards?",
            ssh(case.node, f"{enter} iptables-save -t filter"),
        ),
        Hint(
            "The first rule drops all that comes from the bridge.",
            ssh(case.node, f"{enter} iptables -D FORWARD -i {device} {_COMMENT} -j DROP"),
        ),
    ]


def _source_dest(case: Case) -> list[Hint]:
    return [
        *(way_out(case) if case.source else []),
        Hint(
            "The packet leaves the node with a pod's address, and without a tunnel. What does EC2 do then?",
            "./lab verify STACK",
        ),
        Hint("The instance's source/destination check must be off.", "./lab up STACK --refresh"),
    ]


def _service(case: Case) -> list[Hint]:
    namespace, _, name = case.target.object.partition("/")
    kubectl = f"kubectl --kubeconfig .lab/exercises/kubeconfig -n {namespace}"
    patch = f'{{"spec":{{"selector":{{"app":"{name}"}}}}}}'
    # Columns of our own: a sandbox's API has no table for a kind, only its name and age.
    addresses_of_slice = "-o " + quote("custom-columns=NAME:.metadata.name,ENDPOINTS:.endpoints[*].addresses[*]")
    labels = "-o custom-columns=NAME:.metadata.name,SELECTOR:.spec.selector"
    return [
        Hint("Get a kubeconfig.", _KUBECONFIG),
        Hint("Do the pods run, and with which labels?", f"{kubectl} get pods --show-labels"),
        Hint("To which addresses does the Service lead?", f"{kubectl} get endpointslices {addresses_of_slice}"),
        Hint("To none. By which labels does it look for its pods?", f"{kubectl} get service {name} {labels}"),
        Hint("No pod has these labels.", f"{kubectl} patch service {name} --type merge -p {quote(patch)}"),
    ]


def _peer_as(case: Case) -> list[Hint]:
    name = case.target.object
    peer = next(peer for peer in case.lab.spec.calico.peers if peer.name == name)
    bird = 'crictl exec "$(crictl ps --quiet --name "^calico-node$")" birdcl -s /var/run/calico/bird.ctl show protocols'
    session = f"Node_{peer.peer_ip}".replace(".", "_")
    kind = "bgppeers." + api_version(case.lab.spec).partition("/")[0]
    kubectl = "kubectl --kubeconfig .lab/exercises/kubeconfig"
    columns = "-o custom-columns=NAME:.metadata.name,PEER:.spec.peerIP,AS:.spec.asNumber"
    patch = f'{{"spec":{{"asNumber":{peer.as_number}}}}}'
    return [
        *(way_out(case) if case.destination else []),
        Hint("BIRD exchanges the routes of pods by BGP. Are all of its sessions established?", ssh(case.node, bird)),
        Hint(
            f"That with {peer.peer_ip} is not. What does BIRD say after an attempt? Repeat it a few times.",
            ssh(case.node, f"{bird} all {session}"),
        ),
        Hint("BIRD was configured with another AS number. Get a kubeconfig, to see where it comes from.", _KUBECONFIG),
        Hint("A BGPPeer has it. Compare it with calico.peers of the stack file.", f"{kubectl} get {kind} {columns}"),
        Hint(
            f"{peer.peer_ip} is in AS {peer.as_number}: write that. A router may take minutes to try again.",
            f"{kubectl} patch {kind} {name} --type merge -p {quote(patch)}",
        ),
    ]


def _lost_peer(case: Case) -> str:
    if case.destination:
        return lost_pair(case)
    return f"Since this morning the router {case.target.object} says that it has no BGP session with {case.node}."


def _new_pods(case: Case, what: str) -> str:
    return f"Since this morning new pods on {case.node} {what}. Those that ran before are fine."


LESSONS: Mapping[str, Lesson] = {
    "source-dest-check": Lesson(3, lambda case: lost_pair(case) if case.source else "Pods lose packets.", _source_dest),
    "vxlan-dropped": Lesson(2, lost_pair, _dropped(VXLAN)),
    "ipip-dropped": Lesson(2, lost_pair, _dropped(IPIP)),
    "fdb-gone": Lesson(2, lost_pair, _fdb, heals_soon=True),
    "stale-neighbour": Lesson(2, lost_pair, _neighbour, heals_soon=True),
    "proxy-arp-off": Lesson(1, lost_pair, _proxy_arp),
    "ip-forward-off": Lesson(
        1,
        lambda case: f"Since this morning the pods of {case.node} reach nobody, and nobody reaches them.",
        _forwarding,
    ),
    "rp-filter-strict": Lesson(3, lost_pair, _reverse_path),
    "nat-off": Lesson(2, lost_outside, _nat, heals_soon=True),
    "mtu-too-large": Lesson(
        3,
        lambda case: (
            f"Downloads of {case.target.pod.id if case.target.pod else 'a pod'} hang since this morning. "
            "Connections open, and small answers arrive."
        ),
        _mtu,
    ),
    "link-slow": Lesson(2, lambda case: f"Since this morning everything to and from {case.node} is slow.", _slow),
    "multus-emptied": Lesson(3, lambda case: _new_pods(case, "come up without their second network"), _multus),
    "delegate-renamed": Lesson(3, lambda case: _new_pods(case, "stay in ContainerCreating"), _renamed),
    "range-moved": Lesson(3, lambda case: _new_pods(case, "get addresses that others have"), _range),
    "wrong-default-route": Lesson(1, lost_outside, _default_route),
    "firewall-gone": Lesson(2, lost_outside, _firewall_gone),
    "firewall-drops": Lesson(2, lost_outside, _firewall_drops),
    "service-without-endpoints": Lesson(
        1,
        lambda case: f"Since this morning clients of the Service {case.target.object} are refused. Its pods run.",
        _service,
    ),
    "wrong-peer-as": Lesson(2, _lost_peer, _peer_as),
}
