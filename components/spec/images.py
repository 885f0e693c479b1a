"""Which image EC2 machines boot: the public parameter of Parameter Store that names a distribution's newest AMI."""

from __future__ import annotations

from components.spec.models import AwsMachines

# Canonical, "Find Ubuntu images on AWS", section "SSM". `release`: such as 24.04. `architecture`: amd64 or arm64.
# `volume`: gp2 up to 23.04, then gp3.
UBUNTU_PARAMETER = (
    "/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/ebs-{volume}/ami-id"
)


def image_parameter(machines: AwsMachines) -> str:
    """The parameter whose value is the id of the newest AMI of machines.system for the machines' architecture."""
    release = machines.system.removeprefix("ubuntu-")
    volume = "gp2" if release == "22.04" else "gp3"
    return UBUNTU_PARAMETER.format(release=release, architecture=machines.architecture, volume=volume)
