"""`./lab cost`: counts the graph, takes prices from a table, and names what has no price."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import pytest
import yaml
from botocore.stub import Stubber

from cli import project
from cli.errors import USAGE, CommandError
from cli.plan.cost import FREE, MONTH_HOURS, PRICES, Item, Prices, count
from engine.model import Resource
from policy.check import load_config
from policy.rules import RULES
from tests.support.cli import lab
from tests.support.graphs import ROOT, run_lab

TABLE = yaml.safe_load(PRICES.read_text(encoding="utf-8"))
AWS = {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}


def resource(kind: str, **inputs: Any) -> Resource:
    return Resource(f"urn::{kind}", kind, "one", None, True, inputs)


def priced(lab: dict[str, Any]) -> dict[str, Item]:
    graph = run_lab(lab)
    of_aws = [r for r in graph.deployment.resources if r.type.startswith("aws:")]
    items, unknown = count(of_aws, Prices.of(TABLE, "us-west-2"))
    assert unknown == [], "every resource of AWS is priced, or known to be free"
    return {item.what: item for item in items}


def test_the_sum_of_three_machines() -> None:
    items = priced({"machines": AWS})
    hour = 3 * 0.0832 + 3 * 30 * 0.08 / 730 + 3 * 0.005
    assert sum(item.of(1) for item in items.values()) == pytest.approx(hour)
    assert items["machine t3.large"].number == 3
    assert items["public address of a machine"].number == 2 and items["fixed public address"].number == 1
    assert sum(i.number * i.stopped for i in items.values()) * MONTH_HOURS == pytest.approx(3 * 30 * 0.08 + 0.005 * 730)


def test_the_policy_allows_what_has_a_price_and_nothing_else() -> None:
    (rule,) = [rule for rule in RULES if rule.name == "instance-kinds"]
    allowed = {**rule.defaults, **load_config().get("instance-kinds", {})}["allowed"]
    assert set(allowed) == set(Prices.of(TABLE, "us-east-1").instance_hour)
    for region in TABLE["regions"]:
        assert set(Prices.of(TABLE, region).instance_hour) <= set(allowed)
    assert {"t3.small", "t3.large", "m6i.large", "c7i-flex.large", "m7i-flex.large"} <= set(allowed)


def test_an_address_that_a_fixed_one_replaces_is_not_charged_twice() -> None:
    machine = resource(
        "aws:ec2/instance:Instance",
        instanceType="t3.large",
        rootBlockDevice={"volumeType": "gp3", "volumeSize": 8},
        associatePublicIpAddress=True,
    )
    fixed = resource("aws:ec2/eip:Eip")
    association = replace(
        resource("aws:ec2/eipAssociation:EipAssociation"), property_dependencies={"instanceId": (machine.urn,)}
    )
    for made, number in ([machine, fixed], 2), ([machine, fixed, association], 1), ([association, fixed, machine], 1):
        items, _ = count(made, Prices.of(TABLE, "us-east-1"))
        assert sum(item.number for item in items if item.source == "address") == number


def test_keys_of_the_stack_file_change_the_sum() -> None:
    nodes = [
        {"name": f"cp{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{i}"} for i in (11, 12, 13)
    ]
    items = priced({"machines": AWS | {"instanceType": "m5.xlarge", "volumeSize": 50}, "nodes": nodes})
    assert items["machine m5.xlarge"] == Item("machine", "machine m5.xlarge", 3, 0.192, 0)
    assert items["disk gp3, 50 GiB"].of(MONTH_HOURS) == pytest.approx(3 * 50 * 0.08)
    assert items["network load balancer"].hour == 0.0225


def test_a_nat_gateway_and_its_address_are_counted() -> None:
    made = [resource("aws:ec2/natGateway:NatGateway"), resource("aws:ec2/eip:Eip"), resource("aws:ec2/vpc:Vpc")]
    items, unknown = count(made, Prices.of(TABLE, "us-east-1"))
    assert [(item.what, item.hour) for item in items] == [("NAT gateway", 0.045), ("fixed public address", 0.005)]
    assert unknown == []


def test_a_resource_without_a_price_is_named() -> None:
    made = [resource("aws:rds/instance:Instance"), resource("aws:lb/loadBalancer:LoadBalancer", loadBalancerType="x")]
    items, unknown = count(made, Prices.of(TABLE, "us-east-1"))
    assert items == [] and unknown == ["aws:lb/loadBalancer:LoadBalancer", "aws:rds/instance:Instance"]


def test_the_table_is_complete() -> None:
    for region in TABLE["regions"]:
        prices = Prices.of(TABLE, region)
        assert prices.instance_hour["t3.large"] > 0 and prices.disk_gib_month["gp3"] > 0
        assert min(prices.address_hour, prices.balancer_hour, prices.nat_hour) > 0
    assert set(TABLE["sources"]) == {"machine", "disk", "address", "balancer", "gateway"}
    assert all(kind.startswith("aws:") for kind in FREE)


def test_an_unknown_machine_type_or_region_names_the_fix() -> None:
    made = [
        resource(
            "aws:ec2/instance:Instance", instanceType="x9.huge", rootBlockDevice={"volumeType": "gp3", "volumeSize": 8}
        )
    ]
    with pytest.raises(
        CommandError, match=r"machines.instanceType: x9.huge — no price for it in us-west-2. .*prices.yaml"
    ):
        count(made, Prices.of(TABLE, "us-west-2"))
    with pytest.raises(
        CommandError,
        match=r"aws:region: sa-east-1 — no prices for it; known: ap-northeast-1, .*, ca-central-1, .*us-west-2",
    ) as no:
        Prices.of(TABLE, "sa-east-1")
    assert no.value.code == USAGE


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS credentials, wherever the tests run."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def spot_answers(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str], error: str = "") -> None:
    """EC2 by botocore's Stubber, which holds the call against AWS's own model of the API. `entries`: zone, price."""
    client = boto3.client("ec2", region_name="us-west-2", aws_access_key_id="a", aws_secret_access_key="b")
    stub = Stubber(client)
    if error:
        stub.add_client_error("describe_spot_price_history", error)
    else:
        since = datetime(2026, 11, 26, 1, 20, tzinfo=UTC)
        stub.add_response(
            "describe_spot_price_history",
            {
                "SpotPriceHistory": [
                    {"AvailabilityZone": zone, "SpotPrice": price, "InstanceType": "t3.large", "Timestamp": since}
                    for zone, price in entries
                ]
            },
            {"InstanceTypes": ["t3.large"], "ProductDescriptions": ["Linux/UNIX"], "StartTime": ANY},
        )
    stub.activate()
    monkeypatch.setattr("cli.plan.spot.clients", lambda settings, attempts: lambda service: client)


def test_the_spot_price_of_the_moment_with_its_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The most expensive zone of the region counts, and no Local Zone."""
    spot_answers(monkeypatch, ("us-west-2a", "0.030000"), ("us-west-2c", "0.041200"), ("us-west-2-lax-1a", "0.090000"))
    assert lab("cost", "nightly", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {it["what"]: it["hour"] for it in document["items"]}["machine t3.large, spot"] == 0.0412
    assert document["perHour"] == pytest.approx(3 * 0.0412 + 2 * 0.005 + 3 * 30 * 0.08 / MONTH_HOURS + 0.005, abs=1e-4)
    (note,) = [note for note in document["notes"] if note.startswith("spot:")]
    assert "0.0412 USD an hour in us-west-2c" in note and "since 2026-11-26 01:20 UTC" in note


@pytest.mark.parametrize(
    ("error", "entries", "said"),
    [
        ("UnauthorizedOperation", (), "EC2 refused to say it: UnauthorizedOperation"),
        ("", (), "EC2 offers no t3.large as a spot instance in us-west-2"),
    ],
)
def test_without_a_spot_price_the_on_demand_price_stands_for_it(
    error: str,
    entries: tuple[tuple[str, str], ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spot_answers(monkeypatch, *entries, error=error)
    assert lab("cost", "nightly", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {it["what"]: it["hour"] for it in document["items"]}["machine t3.large"] == 0.0832
    assert any(note.startswith("spot:") and said in note for note in document["notes"])


@pytest.mark.usefixtures("nobody")
def test_a_shipped_stack_on_the_page_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("cost", "nightly") == 0
    page = capsys.readouterr().out
    assert "an evening (3 h)" in page and "yours may differ" in page and "not confirmed: us-west-2" in page
    assert "costs at most" in page and "describe-spot-price-history" in page, "spot machines"
    assert "Unable to locate credentials" in " ".join(page.split())
    assert "stopped" not in page.partition("\n\n")[2].partition("\n")[0], "a spot lab cannot be stopped"
    assert "balancer:" not in page, "only the sources of what is in the sum"
    assert lab("cost", "nightly", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["perEvening"] == pytest.approx(3 * document["perHour"], abs=0.001)
    assert document["perMonthStopped"] is None
    assert lab("cost", "cfos-egress", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["perMonthStopped"] < document["perMonth"]
    assert lab("cost", "cfos-egress") == 0
    assert "a month stopped" in capsys.readouterr().out


def test_sizes_of_a_family_cost_in_proportion() -> None:
    """AWS prices the sizes of these families so, but for rounding: a mistyped price shows."""
    factors = {"small": 0.25, "medium": 0.5, "large": 1, "xlarge": 2, "2xlarge": 4}
    for region in TABLE["regions"]:
        hours = Prices.of(TABLE, region).instance_hour
        for kind, hour in hours.items():
            family, size = kind.split(".")
            assert hour == pytest.approx(hours[f"{family}.large"] * factors[size], abs=0.0003), (region, kind)


def test_a_type_without_a_price_in_a_region_is_named() -> None:
    made = [
        resource(
            "aws:ec2/instance:Instance",
            instanceType="m6i.large",
            rootBlockDevice={"volumeType": "gp3", "volumeSize": 8},
        )
    ]
    with pytest.raises(CommandError, match=r"m6i\.large — no price for it in eu-central-1"):
        count(made, Prices.of(TABLE, "eu-central-1"))


def test_a_lab_outside_the_cloud_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("cost", "local") == 0
    assert "no cloud account is charged" in capsys.readouterr().out


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab("cost", "nosuch") == 2
    assert capsys.readouterr().err.startswith("lab cost: there is no stack 'nosuch'")
    text = (ROOT / "stacks" / "Pulumi.nightly.yaml").read_text().replace("us-west-2", "sa-east-1")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.far.yaml").write_text(text)
    (tmp_path / project.PROGRAM).symlink_to(ROOT / project.PROGRAM)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    assert lab("cost", "far") == 2
    said = capsys.readouterr().err
    assert said.startswith("lab cost: aws:region: sa-east-1") and said.count("\n") == 1


def test_every_price_has_a_source_with_its_date_and_todays_page() -> None:
    for what, source in TABLE["sources"].items():
        assert re.search(r"\b20\d\d", source) and "https://aws.amazon.com/" in source, what
