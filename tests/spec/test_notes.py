"""Notes about a valid stack file with EC2 machines."""

from __future__ import annotations

import pytest

from components.spec.notes import notes
from tests.support.aws_labs import aws_lab

OWN = {"operatorCidrs": ["198.18.0.1/32"]}
IMAGE = {"image": "ami-0123456789abcdef0", "user": "admin"}


@pytest.mark.parametrize(
    ("machines", "noted"),
    [
        ({"workerAccess": "InstanceConnect"} | IMAGE, True),
        ({"workerAccess": "InstanceConnect"}, False),
        (IMAGE, False),
    ],
    ids=["both", "Ubuntu's AMI", "public workers"],
)
def test_an_image_of_their_own_may_keep_people_out(machines: dict[str, str], noted: bool) -> None:
    """Debian's AMIs have another user than Ubuntu's, and no ec2-instance-connect."""
    found = [note for note in notes(aws_lab(OWN | machines)) if note.key == "machines.workerAccess"]
    assert bool(found) == noted
    for note in found:
        assert "--os-user admin" in note.text and "package ec2-instance-connect" in note.text and not note.warning
