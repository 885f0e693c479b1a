"""Names of the program's own resources that more than one file relies on.

A resource's URN consists of its type token, those of the components around it, and its name. The engine identifies
resources by their URNs, so after a change of a name here `up` replaces the resources with that name. Everything that
reads a plan, a state or an event log takes the names from here. tests/spec/test_names.py compares them with the graphs
of real labs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

# --- type tokens of components ----------------------------------------------------------------------------------------

PACKAGE: Final = "cnilab"
"""The first part of every token; also the name of the package that other programs import."""

LAB: Final = "cnilab:index:Lab"
STEP: Final = "cnilab:node:Step"
"""Scripts that run on a node. Its inputs `node` and `phase` say where, and what for."""

MACHINES: Final = "cnilab:machines:"
"""The beginning of the token of every provider's machines."""
AWS_MACHINES: Final = "cnilab:machines:AwsMachines"
LOCAL_MACHINES: Final = "cnilab:machines:LocalMachines"
EXISTING_MACHINES: Final = "cnilab:machines:ExistingMachines"
NETWORK: Final = "cnilab:network:Network"
BALANCER: Final = "cnilab:network:Balancer"
ENDPOINT: Final = "cnilab:network:Endpoint"
CLUSTER: Final = "cnilab:cluster:Cluster"
PKI: Final = "cnilab:cluster:Pki"
CALICO: Final = "cnilab:calico:Calico"
MULTUS: Final = "cnilab:multus:Multus"
NODE_FILES: Final = "cnilab:multus:NodeFiles"
WORKLOADS: Final = "cnilab:workloads:Workloads"
VERIFICATION: Final = "cnilab:verify:Verification"

# --- steps ------------------------------------------------------------------------------------------------------------

StepPhase = Literal["prepare", "init", "drain", "upgrade", "admit", "join", "calico", "blocks", "files"]
"""What a Step does on its node: the input `phase`."""

# --- names of resources -----------------------------------------------------------------------------------------------

STACK_LAB: Final = "lab"
"""The Lab that `__main__.py` makes. In other programs it may have any name."""


def machines(lab: str) -> str:
    """The component of a Lab's machines; the name of a node's machine on EC2 is this, a hyphen, and the node's."""
    return f"{lab}-machines"


def cluster_step(cluster: str, node: str, phase: StepPhase) -> str:
    """A Step of the component Cluster. The last word is the phase, by which an event log is read."""
    return f"{cluster}-{node}-{phase}"


def calico(lab: str) -> str:
    """The component Calico of a Lab."""
    return f"{lab}-calico"


def blocks_step(calico: str) -> str:
    """The Step of the component Calico that reads which blocks each node has claimed."""
    return f"{calico}-blocks"


def node_files(lab: str) -> str:
    """The component NodeFiles of a Lab."""
    return f"{lab}-node-files"


def node_files_step(node_files: str, node: str) -> str:
    """The Step of the component NodeFiles that writes a node's CNI files."""
    return f"{node_files}-{node}"


def verification(lab: str) -> str:
    """The component Verification of a Lab, and its command, which makes the report of the lab's checks."""
    return f"{lab}-verification"


# --- commands on this computer ----------------------------------------------------------------------------------------

LOCAL_SCRIPTS: Final = "components/machines/local-"
"""How the path of every script of local machines begins, as the state has it. Pulumi starts its plugins in the
project's folder, and an absolute path would tie the state to one clone. These paths are links to the scripts in
components/machines/local: states of labs that are up hold them, so that another path would show as a change of every
machine, and `destroy` without `up` would not find it."""

# --- stack files ------------------------------------------------------------------------------------------------------


def stack_name(path: Path) -> str:
    """The name of a file's stack: `Pulumi.local.yaml` has the stack `local`."""
    return path.name.removeprefix("Pulumi.").removesuffix(".yaml").removesuffix(".yml")


LOCAL_SUFFIX: Final = "-local"
"""The local variant of the stack NAME is the stack NAME-local (components/spec/variant.py)."""


def base_name(stack: str) -> str:
    """The stack whose local variant this is: cross-node for cross-node-local. Any other name stays."""
    return stack.removesuffix(LOCAL_SUFFIX) or stack


# --- addresses --------------------------------------------------------------------------------------------------------

SANDBOX_OUTSIDE: Final = "198.51.100.1"
"""The only address outside of a lab that answers in a sandbox: its router's, in no subnet of any lab (RFC 5737)."""
