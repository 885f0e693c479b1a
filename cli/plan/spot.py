"""What a spot instance costs now, as EC2 says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from components.aws_client import AwsSettings, clients


class NoPrice(Exception):
    """EC2 names no price. The message says why, as a clause."""


@dataclass(frozen=True)
class SpotPrice:
    """USD an hour in a zone, valid since `since` (UTC)."""

    hour: float
    zone: str
    since: datetime


def price_now(settings: AwsSettings, kind: str) -> SpotPrice:
    """The spot price of an instance type of Linux, in the region's most expensive zone. Raises NoPrice.

    Local Zones are left out: no lab starts there (components/machines/aws).
    """
    try:
        found = _history(clients(settings, attempts=1), kind)
    except ClientError as error:
        raise NoPrice(f"EC2 refused to say it: {error.response['Error']['Code']}") from None
    except BotoCoreError as error:
        raise NoPrice(f"EC2 was not asked: {str(error).rstrip('.')}") from None
    zones = re.compile(rf"{re.escape(settings.region or '')}[a-z]")
    prices = [
        SpotPrice(float(entry["SpotPrice"]), entry["AvailabilityZone"], entry["Timestamp"].astimezone(UTC))
        for entry in found
        if zones.fullmatch(entry["AvailabilityZone"])
    ]
    if not prices:
        raise NoPrice(f"EC2 offers no {kind} as a spot instance in {settings.region}")
    return max(prices, key=lambda price: (price.hour, price.zone))


def _history(client: Callable[[str], Any], kind: str) -> list[dict[str, Any]]:
    """One entry for each zone: a history from now on begins with the prices that are valid now (EC2's API reference,
    DescribeSpotPriceHistory)."""
    answer = client("ec2").describe_spot_price_history(
        InstanceTypes=[kind], ProductDescriptions=["Linux/UNIX"], StartTime=datetime.now(UTC)
    )
    entries: list[dict[str, Any]] = answer["SpotPriceHistory"]
    return entries
