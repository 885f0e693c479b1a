"""The lifecycle's tests are about pulumi: this computer need not be able to carry a lab for them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.lifecycle.deploy.examine_before", lambda command, file, state=None: None)
