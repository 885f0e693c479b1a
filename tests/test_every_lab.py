"""Any lab that is accepted plans: no hang, no traceback, the properties of every graph."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given

from tests.strategies import labs
from tests.support.examples import examples
from tests.support.graphs import run_lab_once
from tests.test_lab import check_every_graph


@examples(25)
@given(labs())
def test_every_accepted_lab_plans(lab: dict[str, Any]) -> None:
    preview = run_lab_once(lab, timeout_seconds=30)
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "id"
        key.touch(mode=0o600)
        key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n")
        if lab["machines"]["provider"] == "existing":
            # An up reads the key; a preview does not.
            nodes = [n | {"ssh": n["ssh"] | {"privateKeyFile": str(key)}} for n in lab["nodes"]]
            machines = lab["machines"] | {"privateKeyFile": str(key)}
            if "privateKeyFile" in machines.get("jumpHost", {}):
                machines["jumpHost"] = machines["jumpHost"] | {"privateKeyFile": str(key)}
            lab = lab | {"machines": machines, "nodes": nodes}
        check_every_graph(preview, run_lab_once(lab, dry_run=False, timeout_seconds=30))
