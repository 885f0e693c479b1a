"""Which fault a seed stands for: the same for everybody who has the same stack."""

from __future__ import annotations

import random

from components.spec import models
from components.verify.exercise.layers import Case
from components.verify.exercise.lessons import LESSONS
from components.verify.expect import expectations
from components.verify.faults.model import Fault, Refused, Symptoms, Target
from components.verify.faults.symptoms import symptoms
from components.verify.faults.table import FAULTS
from components.verify.model import ObservedLab, Topic


def candidates(lab: models.Lab, level: int | None, *, sandbox: bool) -> list[Fault]:
    """The faults that a lab can have, by level. Raises Refused where there is none."""
    found = [
        fault for fault in FAULTS.values() if level in (None, LESSONS[fault.id].level) and fault.refusal(lab) is None
    ]
    # What Felix repairs by itself within minutes is no exercise on a cluster.
    found = [fault for fault in found if not (fault.not_in_sandbox if sandbox else LESSONS[fault.id].heals_soon)]
    if not found:
        raise Refused(f"this lab has no exercise of level {level}: take another level, or another stack")
    return found


def choose(of: ObservedLab, seed: int, level: int | None, *, sandbox: bool) -> tuple[Fault, Target]:
    """A fault and a place. Raises Refused. A place where a ping shows it is preferred."""
    chance = random.Random(f"cni-lab exercise {seed}")
    found = candidates(of.spec, level, sandbox=sandbox)
    chance.shuffle(found)
    expected = expectations(of)
    for fault in found:
        targets = list(fault.targets(of))
        chance.shuffle(targets)
        shown = (target for target in targets if _shows(symptoms(fault, of, target, expected)))
        target = next(shown, targets[0] if targets else None)
        if target and LESSONS[fault.id].suits(Case.of(of, target, symptoms(fault, of, target, expected))):
            return fault, target
    raise Refused("this lab has nothing to break now: its pods do not run, or its nodes have no blocks")


def _shows(wanted: Symptoms) -> bool:
    """Whether a ping is lost, or a walk stops."""
    return wanted.walk is not None or any(e.topic == Topic.PROBE for e in wanted.failed)
