"""The stack file, key by key. The keys are the words of Kubernetes and Calico, in camelCase.

These models check each value by itself; `rules/` checks the values against one another. Every model is frozen and
refuses unknown keys. A field's docstring is its description in stacks/schema.json, from which editors complete:
`python -m components.spec.schema` writes that file.
"""

from components.spec.models.calico import BgpPeer, Calico, Pool
from components.spec.models.cluster import Kubernetes, Network, Node, Ssh, Taint
from components.spec.models.lab import Lab
from components.spec.models.machines import (
    AwsMachines,
    ExistingMachines,
    JumpHost,
    LocalMachines,
    MachineProvider,
    Machines,
)
from components.spec.models.mirrors import Mirrors
from components.spec.models.pods import (
    CALICO_NETWORK,
    AddressedNetwork,
    AttachedNetwork,
    Attachment,
    BridgeNetwork,
    CustomNetwork,
    Delegate,
    HostDeviceNetwork,
    HostLocal,
    IpvlanNetwork,
    MacvlanNetwork,
    Multus,
    Resources,
    Service,
    StaticAddresses,
    Whereabouts,
    Workload,
)

__all__ = [
    "CALICO_NETWORK",
    "AddressedNetwork",
    "AttachedNetwork",
    "Attachment",
    "AwsMachines",
    "BgpPeer",
    "BridgeNetwork",
    "Calico",
    "CustomNetwork",
    "Delegate",
    "ExistingMachines",
    "HostDeviceNetwork",
    "HostLocal",
    "IpvlanNetwork",
    "JumpHost",
    "Kubernetes",
    "Lab",
    "LocalMachines",
    "MachineProvider",
    "Machines",
    "MacvlanNetwork",
    "Mirrors",
    "Multus",
    "Network",
    "Node",
    "Pool",
    "Resources",
    "Service",
    "Ssh",
    "StaticAddresses",
    "Taint",
    "Whereabouts",
    "Workload",
]
