"""The Pulumi program: reads the stack's configuration, makes the lab, and exports its outputs."""

import pulumi
from pulumi.runtime.settings import get_monitor

from components.aws_client import ACCOUNT_KEYS
from components.interrupt import end_quietly_on_interrupt
from components.lab import Lab, LabArgs
from components.slowdown import factor
from components.spec import names
from components.spec.load import SpecError, parse_lab

if get_monitor() is None:
    # Not run as a program, but as the plugin of PulumiPlugin.yaml: it serves the lab to other programs.
    from components.package import serve

    serve()

end_quietly_on_interrupt()
config = pulumi.Config("cni-lab")
aws = pulumi.Config("aws")
region = aws.get("region")
account = {f"aws:{key}": text for key in ACCOUNT_KEYS if (text := aws.get(key))}
try:
    spec = parse_lab(config.require_object("lab"), {"aws:region": region or "", **account})
except SpecError as error:
    raise pulumi.RunError(str(error)) from None
try:
    factor()
except ValueError as error:
    raise pulumi.RunError(str(error)) from None

passwords = {key: config.require_secret(key) for key in spec.calico.passwords.values()}
lab = Lab(names.STACK_LAB, LabArgs(spec, pulumi.get_stack(), region, account, passwords))

pulumi.export("kubeconfig", lab.kubeconfig)
# With this the next `up` judges whether the live lab can take a change (components/spec/changes.py). Secret, because
# nobody wants to read it at the end of an `up`. An `up` that fails registers no outputs, so the earlier ones stay.
pulumi.export("lab", pulumi.Output.secret(spec.model_dump(mode="json", by_alias=True, exclude_none=True)))
pulumi.export("nodes", lab.nodes)
pulumi.export("blocks", lab.blocks)
pulumi.export("access", lab.access)
if lab.verification is not None:
    pulumi.export("verification", lab.verification)
