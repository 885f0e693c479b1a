"""A lab for each student. The labs have the same network in different modes, which the students have to find out.

Every lab takes its part of the account's quotas. Ask first whether they have room for the class:

./lab doctor cfos-egress --labs 2
pulumi config set aws:region us-west-2
pulumi config set --path students.ada 203.0.113.7/32
pulumi config set --path students.grace 198.51.100.20/32
pulumi up
"""

import sys
from itertools import cycle
from pathlib import Path

import pulumi

# A program in a repository of its own does not need this line: its requirements.txt names cni-lab.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cnilab import Lab, LabArgs, SpecError, parse_lab

MODES = [
    {"bgp": "Enabled", "pools": [{"name": "pods", "cidr": "10.244.0.0/16", "encapsulation": "IPIP"}]},
    {"bgp": "Disabled", "pools": [{"name": "pods", "cidr": "10.244.0.0/16", "encapsulation": "VXLAN"}]},
]

students = pulumi.Config().require_object("students")
region = pulumi.Config("aws").require("region")
kubeconfigs = {}
for (student, address), mode in zip(sorted(students.items()), cycle(MODES), strict=False):
    wanted = {
        "owner": student,
        "ttlHours": 8,
        "machines": {"provider": "aws", "operatorCidrs": [address]},
        "calico": mode,
        "workloads": [{"name": "multitool", "image": "docker.io/praqma/network-multitool:extra", "replicas": 3}],
    }
    try:
        spec = parse_lab(wanted, {"aws:region": region})
    except SpecError as error:
        raise pulumi.RunError(f"{student}: {error}") from None
    # The name of the lab in the cloud, which must be unique.
    lab = Lab(student, LabArgs(spec, stack=f"{pulumi.get_stack()}-{student}", region=region))
    kubeconfigs[student] = lab.kubeconfig

pulumi.export("kubeconfigs", kubeconfigs)
