"""The names that other Pulumi programs in Python import from this repository.

    from cnilab import Lab, LabArgs, parse_lab

    lab = Lab("blue", LabArgs(parse_lab({"machines": {"provider": "local"}}), stack="blue"))
    pulumi.export("kubeconfig", lab.kubeconfig)

Install it with `pip install <this repository>`. examples/classroom is a complete program. The parts of a lab (machines,
cluster, …) are components as well, in the package `components`.
"""

from components.lab import Lab, LabArgs
from components.spec.findings import SpecError
from components.spec.load import parse_lab
from components.spec.models import Lab as Spec

__all__ = ["Lab", "LabArgs", "Spec", "SpecError", "parse_lab"]
