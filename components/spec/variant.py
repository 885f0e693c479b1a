"""The local variant of a lab: the same stack file with machines on this computer."""

from __future__ import annotations

from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

_ELSEWHERE: Final = (
    ("network", "zones"),  # of EC2
    ("kubernetes", "controlPlaneEndpoint"),  # a load balancer
    ("calico", "interface"),  # interfaces of other machines: a container has one, eth0
    ("calico", "skipInterface"),
)
"""Keys of the lab about things that are not on this computer."""


def local_variant(text: str) -> str:
    """The text of a valid stack file with containers on this computer in place of its machines.

    Names, addresses, ranges, modes, workloads and comments stay. What is left out: everything under `machines`, the
    settings of the AWS account, the hosts' SSH keys, and the keys of _ELSEWHERE.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(text)
    config = document["config"]
    for key in [key for key in config if key.startswith("aws:")]:
        del config[key]
    lab = config["cni-lab:lab"]
    lab["machines"] = _flow({"provider": "local"})
    for section, key in _ELSEWHERE:
        if key in (lab.get(section) or {}):
            del lab[section][key]
            if not lab[section]:
                del lab[section]
    for node in lab.get("nodes", ()):
        node.pop("ssh", None)
    written = StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def _flow(value: dict[str, Any]) -> CommentedMap:
    mapping = CommentedMap(value)
    mapping.fa.set_flow_style()
    return mapping
