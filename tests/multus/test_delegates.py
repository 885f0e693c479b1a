"""CNI configurations, against the text of the seeds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.multus import delegates
from components.multus.manifests import attachments
from components.spec.models import Lab
from tests.calico.labs import SEED, calico_lab, lab

# Seeds 000 and 004, node ip1001100.
NET_CALICO = """
{
  "cniVersion": "0.3.1",
  "name": "net-calico",
  "type": "calico",
  "datastore_type": "kubernetes",
  "mtu": 0,
  "nodename_file_optional": false,
  "log_level": "Info",
  "log_file_path": "/var/log/calico/cni/cni.log",
  "ipam": {
    "type": "host-local",
    "ranges": [
       [
         {
           "subnet": "10.244.6.0/24",
           "rangeStart": "10.244.6.150",
           "rangeEnd": "10.244.6.250"
         }
       ]
    ]
  },
  "container_settings": {
      "allow_ip_forwarding": true
  },
  "policy": {
      "type": "k8s"
  },
  "kubernetes": {
      "k8s_api_root":"https://10.96.0.1:443",
      "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"
  }
}
"""
DEFAULT_CALICO_IPAM = """
{
    "type": "host-local",
    "ranges": [
       [
         {
           "subnet": "10.244.6.0/24",
           "rangeStart": "10.244.6.50",
           "rangeEnd": "10.244.6.100"
         }
       ]
    ],
   "routes": [
      { "dst": "10.96.0.0/12" },
      { "dst": "10.0.0.0/8" }
   ]
}
"""
MULTUS = """
{
  "name": "multus-cni-network",
  "type": "multus",
  "confDir": "/etc/cni/multus/net.d",
  "cniDir": "/var/lib/cni/multus",
  "binDir": "/opt/cni/bin",
  "logFile": "/var/log/multus.log",
  "logLevel": "info",
  "capabilities": {
    "portMappings": true
  },
  "clusterNetwork": "net-calico",
  "defaultNetworks": [],
  "delegates": [],
  "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"
}
"""
CFOS = """
{
  "cniVersion": "0.3.1",
  "name": "cfosdefaultcni5",
  "type": "bridge",
  "bridge": "cni5",
  "isGateway": true,
  "ipMasq": false,
  "hairpinMode": true,
  "ipam": {
      "type": "host-local",
      "routes": [
          { "dst": "10.96.0.0/12","gw": "10.1.128.1" },
          { "dst": "10.0.0.2/32", "gw": "10.1.128.1" }
      ],
      "ranges": [
          [{ "subnet": "10.1.128.0/24" }]
      ]
  }
}
"""


def _delegate(spec: Lab, index: int, start: str, end: str) -> dict[str, Any]:
    assert spec.multus is not None
    return delegates.delegate_config(
        spec, spec.multus.delegates[index], subnet="10.244.6.0/24", start=f"10.244.6.{start}", end=f"10.244.6.{end}"
    )


def test_net_calico_is_as_in_the_seeds() -> None:
    assert _delegate(lab(), 0, "150", "250") == json.loads(NET_CALICO)


def test_default_calico_has_its_routes_and_no_default_route() -> None:
    config = _delegate(lab(), 1, "50", "100")
    assert config["ipam"] == json.loads(DEFAULT_CALICO_IPAM)
    assert {k: v for k, v in config.items() if k not in {"name", "ipam"}} == {
        k: v for k, v in json.loads(NET_CALICO).items() if k not in {"name", "ipam"}
    }


def test_multus_is_as_in_the_seeds_except_for_corrections() -> None:
    """A cniVersion, no delegates (clusterNetwork overrides them), a valid log level, and our own kubeconfig."""
    spec = lab()
    assert spec.multus is not None
    seed = json.loads(MULTUS)
    del seed["delegates"]
    seed |= {"cniVersion": "0.3.1", "logLevel": "verbose", "kubeconfig": "/etc/cni/multus/multus.kubeconfig"}
    assert delegates.multus_config(spec.multus) == seed


def test_the_bridge_is_as_in_the_seeds() -> None:
    spec = lab()
    [network] = spec.networks
    assert delegates.network_config(spec, network) == json.loads(CFOS)


def test_forwarding_and_mtu_are_in_the_delegate() -> None:
    assert _delegate(calico_lab(containerIPForwarding="Disabled"), 0, "150", "250")["container_settings"] == {
        "allow_ip_forwarding": False
    }
    own = lab(
        multus={
            "clusterNetwork": "n",
            "delegates": [{"name": "n", "rangeStart": 1, "rangeEnd": 9, "allowIPForwarding": False}],
        }
    )
    assert _delegate(own, 0, "1", "9")["container_settings"] == {"allow_ip_forwarding": False}
    assert _delegate(calico_lab(mtu=1400), 0, "150", "250")["mtu"] == 1400


@pytest.mark.parametrize(
    ("network", "config"),
    [
        (
            {"type": "macvlan", "master": "eth0", "subnet": "10.9.0.0/24", "mtu": 1500, "mode": "private"},
            {
                "type": "macvlan",
                "master": "eth0",
                "mode": "private",
                "mtu": 1500,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
            },
        ),
        (
            {
                "type": "ipvlan",
                "master": "eth0",
                "subnet": "10.9.0.0/24",
                "ipam": {
                    "type": "host-local",
                    "rangeStart": "10.9.0.10",
                    "rangeEnd": "10.9.0.20",
                    "gateway": "10.9.0.1",
                },
            },
            {
                "type": "ipvlan",
                "master": "eth0",
                "mode": "l2",
                "ipam": {
                    "type": "host-local",
                    "ranges": [
                        [
                            {
                                "subnet": "10.9.0.0/24",
                                "rangeStart": "10.9.0.10",
                                "rangeEnd": "10.9.0.20",
                                "gateway": "10.9.0.1",
                            }
                        ]
                    ],
                },
            },
        ),
        (
            {
                "type": "host-device",
                "device": "eth1",
                "subnet": "10.9.0.0/24",
                "ipam": {"type": "static", "addresses": ["10.9.0.7/24"], "gateway": "10.9.0.1"},
                "routes": [{"dst": "10.8.0.0/16"}],
            },
            {
                "type": "host-device",
                "device": "eth1",
                "ipam": {
                    "type": "static",
                    "routes": [{"dst": "10.8.0.0/16"}],
                    "addresses": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}],
                },
            },
        ),
        (
            {
                "type": "macvlan",
                "master": "eth0",
                "subnet": "10.9.0.0/24",
                "ipam": {"type": "whereabouts", "rangeStart": "10.9.0.10", "rangeEnd": "10.9.0.20"},
            },
            {
                "type": "macvlan",
                "master": "eth0",
                "mode": "bridge",
                "ipam": {
                    "type": "whereabouts",
                    "range": "10.9.0.0/24",
                    "range_start": "10.9.0.10",
                    "range_end": "10.9.0.20",
                },
            },
        ),
        (
            {"type": "custom", "config": {"type": "dummy", "cniVersion": "1.0.0"}},
            {"type": "dummy", "cniVersion": "1.0.0"},
        ),
        (
            {"type": "custom", "config": '{"type": "dummy", "cniVersion": "1.0.0"}'},
            {"type": "dummy", "cniVersion": "1.0.0"},
        ),
    ],
)
def test_networks_of_every_kind(network: dict[str, Any], config: dict[str, Any]) -> None:
    spec = lab(networks=[{"name": "net", **network}])
    assert delegates.network_config(spec, spec.networks[0]) == {"cniVersion": "0.3.1", "name": "net"} | config


BRIDGE = {"name": "net", "type": "bridge", "bridge": "br1", "subnet": "10.9.0.0/24"}


def attached(*attachments: dict[str, Any], **network: Any) -> Lab:
    """A lab with one bridge and a workload for each attachment to it."""
    image = "docker.io/library/busybox:1.37"
    workloads = [
        {"kind": "Pod", "name": f"pod{number}", "image": image, "networks": [{"name": "net"} | attachment]}
        for number, attachment in enumerate(attachments)
    ]
    return lab(networks=[BRIDGE | network], workloads=workloads)


MAC, ADDRESS = {"mac": "02:00:00:00:00:02"}, {"ips": ["10.9.0.2/24"]}


@pytest.mark.parametrize(
    ("attachments", "of_the_network", "of_the_second"),
    [
        ([{}], None, None),
        ([MAC], {"mac": True}, None),
        ([ADDRESS], None, {"ips": True}),
        ([ADDRESS | MAC], None, {"ips": True, "mac": True}),
        ([ADDRESS, MAC], {"mac": True}, {"ips": True}),
    ],
)
def test_capabilities_are_what_pods_ask_for(
    attachments: list[dict[str, Any]], of_the_network: Any, of_the_second: Any
) -> None:
    spec = attached(*attachments)
    assert delegates.network_config(spec, spec.networks[0]).get("capabilities") == of_the_network
    second = delegates.fixed_config(spec, spec.networks[0])
    assert (second and second["capabilities"]) == of_the_second
    assert second is None or (second["name"], second["ipam"]) == ("net-fixed", {"type": "static"})


@pytest.mark.parametrize(
    ("ipam", "route", "gateway"),
    [
        ({}, {}, "10.9.0.1"),
        ({"gateway": "10.9.0.254"}, {}, "10.9.0.254"),
        ({"gateway": "10.9.0.254"}, {"gateway": "10.9.0.7"}, "10.9.0.7"),
    ],
)
def test_every_route_of_a_second_configuration_names_its_gateway(
    ipam: dict[str, Any], route: dict[str, Any], gateway: str
) -> None:
    spec = attached(ADDRESS, ipam={"type": "host-local"} | ipam, routes=[{"dst": "10.8.0.0/16"} | route])
    second = delegates.fixed_config(spec, spec.networks[0])
    assert second and second["ipam"]["routes"] == [{"dst": "10.8.0.0/16", "gw": gateway}]


@pytest.mark.parametrize("other", ["a", "z"])
def test_only_pods_of_the_same_network_count(other: str) -> None:
    pod = SEED["workloads"][0] | {"networks": [{"name": other, "ips": ["10.8.0.2/24"]}]}
    second = BRIDGE | {"name": other, "bridge": "br2", "subnet": "10.8.0.0/24"}
    spec = lab(networks=[BRIDGE, second], workloads=[pod | {"replicas": 1, "kind": "Pod"}])
    assert delegates.fixed_config(spec, spec.networks[0]) is None
    assert delegates.fixed_config(spec, spec.networks[1]) is not None


def test_a_custom_network_has_no_second_configuration() -> None:
    custom = {"name": "net", "type": "custom", "config": {"type": "dummy"}}
    spec = lab(networks=[custom], workloads=[SEED["workloads"][0] | {"networks": [{"name": "net"} | ADDRESS]}])
    assert delegates.fixed_config(spec, spec.networks[0]) is None


def test_calicos_own_network_differs_from_a_delegate_by_its_ipam_and_host_ports() -> None:
    own = delegates.calico_config(lab())
    ipam = {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"}
    as_delegate = {key: value for key, value in json.loads(NET_CALICO).items() if key not in ("cniVersion", "name")}
    # Without portmap, hostPort would do nothing.
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    plugins = [as_delegate | {"ipam": ipam}, portmap]
    assert own == {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": plugins}
    podcidr = delegates.calico_config(calico_lab(ipam="HostLocal"))
    assert podcidr["plugins"][0]["ipam"] == {"type": "host-local", "subnet": "usePodCidr"}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"multus": None, "workloads": []}, ["calico", "multus"]),
        (
            {"multus": {"clusterNetwork": "k8s-pod-network"}, "workloads": []},
            ["calico", "calico-ipam", "multus", "portmap"],
        ),
        (
            {"workloads": [SEED["workloads"][0] | {"networks": [], "defaultNetwork": "k8s-pod-network"}]},
            ["calico", "calico-ipam", "host-local", "multus", "portmap"],
        ),
    ],
)
def test_the_plugins_of_eth0(keys: dict[str, Any], wanted: list[str]) -> None:
    assert delegates.plugins(lab(networks=[], **keys)) == wanted


def test_the_plugins_are_those_of_all_configurations() -> None:
    assert delegates.plugins(lab()) == ["bridge", "calico", "host-local", "multus"]
    chain = {"plugins": [{"type": "macvlan", "ipam": {"type": "static"}}, {"type": "tuning"}], "ipam": 7}
    spec = lab(networks=[{"name": "chain", "type": "custom", "config": chain}])
    assert delegates.plugins(spec) == ["calico", "host-local", "macvlan", "multus", "static", "tuning"]


def test_attachments_have_the_configuration_as_text_and_delegates_have_none() -> None:
    made = attachments(lab())
    assert list(made) == ["kube-system/net-calico", "kube-system/default-calico", "default/cfosdefaultcni5"]
    assert "spec" not in made["kube-system/net-calico"]
    assert json.loads(made["default/cfosdefaultcni5"]["spec"]["config"]) == json.loads(CFOS)
