"""`./lab cost`: what a lab costs, from its graph and a table of prices.

It counts the resources that the program would create, so every key of the stack file that changes them changes the sum.
An AWS resource that has no price and is not known to be free is named. Only a spot lab asks AWS, for the spot price of
the moment; where it cannot, the on-demand price takes its place.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.console import page
from cli.errors import USAGE, CommandError
from cli.plan.program import planned
from cli.project import stack_file
from components.aws_client import AwsSettings
from components.spec.load import StackFile, load_stack_file
from components.spec.models import AwsMachines
from components.spec.own_yaml import read_yaml
from engine.model import Deployment, Resource

PRICES = Path(__file__).with_name("prices.yaml")
EVENING_HOURS = 3
MONTH_HOURS = 730
_NO_STOP = "A spot instance cannot be stopped, so there is no price of a stopped lab"

# Types that AWS does not charge for, or only while they are used.
FREE = {
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:ec2/internetGateway:InternetGateway",
    "aws:ec2/keyPair:KeyPair",
    "aws:ec2/routeTable:RouteTable",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:ec2/subnet:Subnet",
    "aws:ec2/vpc:Vpc",
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint",
    "aws:iam/instanceProfile:InstanceProfile",
    "aws:iam/role:Role",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:lb/listener:Listener",
    "aws:lb/targetGroup:TargetGroup",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws:ssm/parameter:Parameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
}


@dataclass(frozen=True)
class Item:
    """`number` equal things that cost `hour` USD an hour each, or `stopped` after `./lab stop`.

    `source` is the key of the price's source in the table.
    """

    source: str
    what: str
    number: int
    hour: float
    stopped: float

    def of(self, hours: int) -> float:
        return self.number * self.hour * hours


@dataclass(frozen=True)
class Prices:
    """The prices of a region in USD, taken from the region `base`. `note` says what is uncertain, if anything."""

    region: str
    base: str
    instance_hour: Mapping[str, float]
    disk_gib_month: Mapping[str, float]
    address_hour: float
    balancer_hour: float
    nat_hour: float
    note: str

    @classmethod
    def of(cls, table: Mapping[str, Any], region: str) -> Prices:
        """Raises CommandError where the table has no such region."""
        regions = table["regions"]
        if region not in regions:
            known = ", ".join(sorted(regions))
            raise CommandError(
                f"aws:region: {region} — no prices for it; known: {known}. Fix: add it to cli/plan/prices.yaml", USAGE
            )
        own = regions[region]
        base = own.get("sameAs", region)
        found = regions[base]
        return cls(
            region=region,
            base=base,
            instance_hour=found["instanceHour"],
            disk_gib_month=found["diskGibMonth"],
            address_hour=found["publicAddressHour"],
            balancer_hour=found["loadBalancerHour"],
            nat_hour=found["natGatewayHour"],
            note=_unconfirmed(region, base, own),
        )

    def look_up(self, prices: Mapping[str, float], key: str, name: str, where: str) -> float:
        """Raises CommandError where the price is missing. `key` is the stack file's, `where` the table's."""
        if name not in prices:
            raise CommandError(
                f"{key}: {name} — no price for it in {self.region}. "
                f"Fix: add it to cli/plan/prices.yaml under regions.{self.base}.{where} (https://aws.amazon.com/ec2/pricing/)",
                USAGE,
            )
        return prices[name]


def sentence(deployment: Deployment, file: StackFile) -> str:
    """What a lab costs, in one line. Never raises: a missing price is named."""
    try:
        total = _total_of(deployment, file)
    except CommandError as error:
        return f"not known: {error}"
    if total is None:
        return "nothing; no cloud is used"
    return (
        f"{total.of(1):.2f} USD an hour, {total.of(EVENING_HOURS):.2f} an evening, {total.of(MONTH_HOURS):.0f} a month "
        f"left on (see `./lab cost`)"
    )


def hourly(file: StackFile) -> float | None:
    """USD an hour while a lab runs; 0 where no cloud is used, None where it is not known."""
    if not file.lab.machines.in_vpc:
        return 0.0
    try:
        total = _total_of(planned(file), file)
    except CommandError:
        return None
    return 0.0 if total is None else round(total.of(1), 4)


def _total_of(deployment: Deployment, file: StackFile) -> Item | None:
    """The sum of what AWS charges for; None where there is nothing of AWS. Raises CommandError for a missing price."""
    of_aws = [resource for resource in deployment.resources if resource.type.startswith("aws:")]
    if not of_aws:
        return None
    prices = Prices.of(read_yaml(PRICES), file.config.get("aws:region", ""))
    return _total(count(of_aws, prices)[0])


def run(stack: str, *, as_json: bool) -> int:
    """Print what a lab costs. Returns 0. Raises CommandError, SpecError."""
    file = load_stack_file(stack_file(stack))
    deployment = planned(file)
    table = read_yaml(PRICES)
    of_aws = [resource for resource in deployment.resources if resource.type.startswith("aws:")]
    prices = Prices.of(table, file.config.get("aws:region", "")) if of_aws else None
    items, unknown = count(of_aws, prices) if prices else ([], [])
    machines = file.lab.machines
    spot = ""
    if prices and isinstance(machines, AwsMachines) and machines.spot:
        items, spot = _as_spot(items, AwsSettings.of(file.config), machines.instance_type)
    notes = _notes(table, prices, items, unknown, spot)
    stoppable = machines.power_refusal("stop") is None
    if as_json:
        document = _document(stack, table, prices, items, notes, stoppable=stoppable)
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif prices is None:
        print(f"{stack}: no cloud account is charged; its machines are not in one")
    else:
        _show(stack, prices, items, notes, stoppable=stoppable)
    return 0


def count(resources: Sequence[Resource], prices: Prices) -> tuple[list[Item], list[str]]:
    """What AWS charges for, the most expensive first, and the types that have no price and are not free.

    Raises CommandError for a type of machine or disk without a price.
    """
    machines: Counter[str] = Counter()
    disks: Counter[tuple[str, int]] = Counter()
    own_addresses: set[str] = set()
    replaced_addresses: set[str] = set()
    fixed_addresses = balancers = gateways = 0
    unknown: set[str] = set()
    for resource in resources:
        match resource.type:
            case "aws:ec2/instance:Instance":
                machines[resource.inputs["instanceType"]] += 1
                disk = resource.inputs["rootBlockDevice"]
                disks[disk["volumeType"], int(disk["volumeSize"])] += 1
                if resource.inputs.get("associatePublicIpAddress"):
                    own_addresses.add(resource.urn)
            case "aws:ec2/eipAssociation:EipAssociation":
                # A fixed address takes the place of the machine's own, which is given back.
                replaced_addresses.update(resource.property_dependencies.get("instanceId", ()))
            case "aws:ec2/eip:Eip":
                fixed_addresses += 1
            case "aws:lb/loadBalancer:LoadBalancer" if resource.inputs.get("loadBalancerType") == "network":
                balancers += 1
            case "aws:ec2/natGateway:NatGateway":
                gateways += 1
            case kind if kind not in FREE:
                unknown.add(kind)
    items = []
    for kind, number in machines.items():
        hour = prices.look_up(prices.instance_hour, "machines.instanceType", kind, "instanceHour")
        items.append(Item("machine", f"machine {kind}", number, hour, 0))
    for (kind, size), number in disks.items():
        hour = prices.look_up(prices.disk_gib_month, "disk", kind, "diskGibMonth") * size / MONTH_HOURS
        items.append(Item("disk", f"disk {kind}, {size} GiB", number, hour, hour))
    # A stopped machine gives its own address back. A fixed address stays, and is charged.
    items.append(
        Item("address", "public address of a machine", len(own_addresses - replaced_addresses), prices.address_hour, 0)
    )
    items.append(Item("address", "fixed public address", fixed_addresses, prices.address_hour, prices.address_hour))
    items.append(Item("balancer", "network load balancer", balancers, prices.balancer_hour, prices.balancer_hour))
    items.append(Item("gateway", "NAT gateway", gateways, prices.nat_hour, prices.nat_hour))
    return sorted((item for item in items if item.number), key=lambda item: -item.of(1)), sorted(unknown)


def _unconfirmed(region: str, base: str, own: Mapping[str, Any]) -> str:
    if "unconfirmed" not in own:
        return ""
    return str(own["unconfirmed"]) if region == base else f"{region} is calculated as {base}: {own['unconfirmed']}"


def _as_spot(items: Sequence[Item], settings: AwsSettings, kind: str) -> tuple[list[Item], str]:
    """The items with the spot price of the machines, if EC2 says it, and a note on where the price is from."""
    from cli.plan.spot import NoPrice, price_now

    try:
        now = price_now(settings, kind)
    except NoPrice as error:
        return [*items], (
            f"spot: the price of a machine is the on-demand price, which a spot instance costs at most; {error}. "
            f"The price of the moment: aws ec2 describe-spot-price-history --instance-types {kind} --max-items 1. "
            f"{_NO_STOP}"
        )
    priced = [replace(it, what=f"{it.what}, spot", hour=now.hour) if it.source == "machine" else it for it in items]
    return sorted(priced, key=lambda it: -it.of(1)), (
        f"spot: {kind} costs {now.hour:.4f} USD an hour in {now.zone}, the most expensive zone, since "
        f"{now.since:%Y-%m-%d %H:%M} UTC, as EC2 says. The price changes all the time. {_NO_STOP}"
    )


def _notes(
    table: Mapping[str, Any], prices: Prices | None, items: Sequence[Item], unknown: Sequence[str], spot: str
) -> list[str]:
    if prices is None:
        return []
    used = {item.source for item in items}
    notes = [f"AWS's list prices of {table['date']}, without tax and discounts; yours may differ. Where each is from:"]
    notes += [f"- {what}: {source}" for what, source in table["sources"].items() if what in used]
    if prices.note:
        notes.append(f"not confirmed: {prices.note}")
    if spot:
        notes.append(spot)
    notes.append(
        "not in the sum: traffic out of AWS and through NAT, the balancer's capacity units, T3's surplus CPU credits"
    )
    notes += [f"not in the sum, and no price known: {kind}" for kind in unknown]
    return notes


def _total(items: Sequence[Item]) -> Item:
    return Item("", "sum", 1, sum(i.of(1) for i in items), sum(i.number * i.stopped for i in items))


def _document(
    stack: str,
    table: Mapping[str, Any],
    prices: Prices | None,
    items: Sequence[Item],
    notes: Sequence[str],
    *,
    stoppable: bool,
) -> dict[str, Any]:
    total = _total(items)
    return {
        "stack": stack,
        "region": prices.region if prices else None,
        "currency": "USD",
        "pricesOf": str(table["date"]),
        "items": [asdict(item) for item in items],
        "perHour": round(total.hour, 4),
        "perEvening": round(total.of(EVENING_HOURS), 4),
        "perMonth": round(total.of(MONTH_HOURS), 2),
        "perMonthStopped": round(total.stopped * MONTH_HOURS, 2) if stoppable else None,
        "notes": list(notes),
    }


def _show(stack: str, prices: Prices, items: Sequence[Item], notes: Sequence[str], *, stoppable: bool) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("what")
    headings = ["number", "an hour", f"an evening ({EVENING_HOURS} h)", "a month left on"]
    for heading in [*headings, *(["a month stopped"] if stoppable else [])]:
        table.add_column(heading, justify="right")
    for item in [*items, _total(items)]:
        cells = [item.of(1), item.of(EVENING_HOURS), item.of(MONTH_HOURS)]
        if stoppable:
            cells.append(item.number * item.stopped * MONTH_HOURS)
        number = "" if item.what == "sum" else str(item.number)
        money = [f"{cell:.4f}" if index == 0 else f"{cell:.2f}" for index, cell in enumerate(cells)]
        table.add_row(item.what, number, *money, style="bold" if item.what == "sum" else "")
    console = page()
    console.print(f"[bold]{stack}[/] in {prices.region}, USD\n")
    console.print(table)
    console.print()
    for note in notes:
        # Under a dash the text goes on two columns further in.
        indent = "    " if note.startswith("- ") else "  "
        for line in textwrap.wrap(
            note,
            console.width,
            initial_indent="  ",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            console.print(line, markup=False, soft_wrap=True)
