"""What a node's rules do to a packet, rule by rule as the kernel goes through them.

Where a rule applies at random, as kube-proxy's do that choose an endpoint, both ways are followed, so there may be
several outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from components.verify.nat.model import Flow, Outcome, Ruleset

_DEPTH = 64
"""How deep jumps may go. The kernel refuses loops, so deeper ones are a misreading."""


@dataclass(frozen=True)
class _State:
    """A packet on its way through the rules."""

    flow: Flow
    path: tuple[str, ...] = ()
    certain: bool = True

    def at(self, line: str, certain: bool) -> _State:
        return replace(self, path=(*self.path, line), certain=self.certain and certain)

    def ended(self, kind: str, target: str = "") -> Outcome:
        return Outcome(kind, target, self.path, self.flow, self.certain)


def outcomes(rules: Ruleset, flow: Flow, hook: str, kind: str = "nat") -> list[Outcome]:
    """Everything that may happen to a packet at a hook. In chains of kind nat the first translation is the only one.

    An outcome "accept" means that no chain changed or dropped it.
    """
    going, done = [_State(flow)], []
    for base in rules.at(hook, kind):
        left: list[_State] = []
        for state in going:
            for outcome in _run(rules, base.table, base.chain, state, 0):
                if outcome.kind in ("return", "accept"):
                    # A verdict of acceptance ends this base chain, not the others of the hook.
                    left.append(_State(outcome.flow, outcome.path, outcome.certain))
                else:
                    done.append(outcome)
        going = left
    return done + [state.ended("accept") for state in going]


def _run(rules: Ruleset, table: str, chain: str, start: _State, depth: int) -> list[Outcome]:
    """The outcomes of one chain; "return" where its end was reached."""
    going, done = [start], []
    for rule in rules.chains.get((table, chain), ()) if depth < _DEPTH else ():
        left: list[_State] = []
        for state in going:
            applies = rule.applies(state.flow)
            if applies is not True:
                left.append(state)
            if applies is False:
                continue
            hit, action = state.at(rule.line, rule.certain), rule.action
            match action.kind:
                case "jump" | "goto":
                    for outcome in _run(rules, table, action.target, hit, depth + 1):
                        if outcome.kind == "return" and action.kind == "jump":
                            left.append(_State(outcome.flow, outcome.path, outcome.certain))
                        else:
                            done.append(outcome)
                case "mark":
                    mark = (state.flow.mark & ~action.mask) ^ action.value
                    left.append(replace(hit, flow=replace(state.flow, mark=mark)))
                case "none":
                    left.append(hit)
                case _:
                    done.append(hit.ended(action.kind, action.target))
        going = left
    return done + [state.ended("return") for state in going]
