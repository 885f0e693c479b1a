"""The same walk in each mode that the lab can have, side by side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, get_args

from components.spec.models import Lab
from components.spec.modes import Encapsulation, tunnel_of
from components.spec.rules import check
from components.verify.walk.model import NoWalk
from page.content.source import Source
from page.content.walks import Offer, foreseen_walk, offers, walk_json
from page.foreseen.lab import foresee

Json = dict[str, Any]

_NEED_BGP = ("IPIP", "IPIPCrossSubnet", "None")
_FIRST_SHOWN = ("IPIP", "None", "VXLAN")


def modes(lab: Lab, stack: str) -> Json:
    """Every walk between nodes in every mode, all of them as the plan foresees them. `refused`: the modes that the lab
    cannot have, each with the reason."""
    base = Source(stack, "plan", *foresee(lab, stack, nodes=()))
    on = {pod.id: pod.node for pod in base.reading.pods}
    found = [(offer, {on[offer.source], on[offer.target]}) for offer in offers(base) if offer.across]
    variants: list[Json] = []
    refused: list[Json] = []
    for word in get_args(Encapsulation):
        changed, needs = _variant(lab, word)
        findings = list(check(changed, None, ()))
        if findings:
            refused.append({"mode": word, "why": f"{findings[0].problem}: {findings[0].fix}"})
            continue
        current = lab.encapsulations == {word}
        shown = current or word in _FIRST_SHOWN
        walked = [_walk(changed, stack, offer, nodes) for offer, nodes in found]
        variants.append({"mode": word, "current": current, "shown": shown, "needs": needs, "walks": walked})
    variants.sort(key=lambda variant: not variant["current"])
    rows = [_rows([variant["walks"][n] for variant in variants]) for n in range(len(found))]
    for variant in variants:
        del variant["walks"]
    return {
        "walks": [{"title": o.title, "source": o.source, "target": o.target} for o, _ in found] if variants else [],
        "variants": variants,
        "rows": rows,
        "refused": refused,
    }


def _variant(lab: Lab, word: Encapsulation) -> tuple[Lab, str]:
    """The lab with one encapsulation for all of its pools, and what else has to change for it."""
    pools = tuple(pool.model_copy(update={"encapsulation": word}) for pool in lab.calico.pools)
    update: dict[str, Any] = {"pools": pools}
    needs = ""
    if word in _NEED_BGP and lab.calico.bgp == "Disabled":
        update["bgp"], needs = "Enabled", "calico.bgp: Enabled"
    return lab.model_copy(update={"calico": lab.calico.model_copy(update=update)}), needs


def _walk(lab: Lab, stack: str, offer: Offer, nodes: Collection[str]) -> Json | None:
    """The walk in this variant of the lab. Its pods have the same names and nodes; their addresses may differ, because
    a tunnel takes one."""
    try:
        source = Source(stack, "plan", *foresee(lab, stack, nodes))
        return walk_json(source, foreseen_walk(source, offer))
    except (NoWalk, ValueError):
        return None


# --- rows ------------------------------------------------------------------------------------------------------------

_PLACES = {
    "pod route": "in the pod: its route",
    "gateway arp": "in the pod: who is the gateway",
    "host veth": "on the node: out of the pod",
    "host route": "on the node: its route",
    "tunnel": "on the node: the tunnel",
    "plain": "on the node: the tunnel",
    "underlay": "on the wire",
    "arrival": "on the other node: arrival",
    "delivery": "on the other node: to the pod",
}


def _rows(walks: Sequence[Json | None]) -> list[Json]:
    """The hops of the way out, one row for each place, with a cell for each mode. `differs`: from the first mode's."""
    found: list[Json] = []
    for place in dict.fromkeys(_PLACES.values()):
        cells = [_cell(walk, place) for walk in walks]
        for cell in cells:
            # The pod's MTU is pointed out once.
            other_mtu = not found and cell["mtu"] != cells[0]["mtu"]
            cell["differs"] = other_mtu or _structure(cell) != _structure(cells[0])
        if any(cell["device"] for cell in cells):
            found.append({"place": place, "cells": cells})
    return found


def _cell(walk: Json | None, place: str) -> Json:
    wrapped = next((_title(hop["device"]) for hop in walk["hops"] if hop["kind"] == "tunnel"), "") if walk else ""
    for hop in walk["hops"] if walk else ():
        if hop["direction"] == "out" and _PLACES.get(hop["kind"]) == place:
            return {
                "device": hop["device"],
                "mtu": hop["packet"].get("mtu", ""),
                "sentence": hop["sentence"],
                "packet": hop["packet"],
                "wrapped": wrapped if "outerSource" in hop["packet"] else "",
                "lines": [line for check in hop["checks"] if (line := _line(check["command"], check["seen"]))],
            }
    return {"device": "", "mtu": "", "sentence": "", "packet": {}, "wrapped": "", "lines": []}


def _title(device: str) -> str:
    """What a tunnel wraps a packet in."""
    tunnel = tunnel_of(device)
    return f"{tunnel.name}, {tunnel.packet_title}" if tunnel else ""


def _line(command: str, seen: str) -> str:
    """What is seen, with its command where it is a bare value; nothing where there is nothing to see."""
    if seen in ("(nothing)", "(no such rule)"):
        return ""
    return f"{command.rpartition('/')[2]} = {seen}" if seen.isdigit() else seen


def _structure(cell: Json) -> tuple[str, str, list[str]]:
    """What makes a difference between modes: the device, the tunnel, which headers there are. Addresses do not count: a
    tunnel takes one, and those of the pods move."""
    return cell["device"], cell["wrapped"], sorted(cell["packet"])
