"""Clients of AWS's APIs whose calls end. boto3 is imported on the first use, because most labs do without AWS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

_CONNECT_TIMEOUT_SECONDS = 10
_READ_TIMEOUT_SECONDS = 30
_ATTEMPTS = 4


def clients(region: str | None) -> Callable[[str], Any]:
    """A function from a service's name, such as "ec2", to its client in the region.

    Raises botocore's NoCredentialsError where no credentials are set.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    limits = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
    )
    session = boto3.Session(region_name=region)
    if session.get_credentials() is None:
        raise NoCredentialsError
    return partial(session.client, config=limits)
