"""Clients of AWS's APIs: with the credentials that the stack file asks for, and with bounded waits.

Every command gets its clients here, so that none of them asks another account than `./lab up` does. boto3 is imported
on the first use, because most labs do without AWS.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CONNECT_TIMEOUT_SECONDS = 10
_READ_TIMEOUT_SECONDS = 30
_ATTEMPTS = 4

ACCOUNT_KEYS = ("profile", "assumeRoles", "sharedConfigFiles", "sharedCredentialsFiles", "stsRegion")
"""The keys under `aws:` that decide, beside the region, which account the aws provider works in."""


class BadSetting(ValueError):
    """A key under `aws:` has a value that cannot be used."""

    def __init__(self, key: str, value: str, problem: str, fix: str) -> None:
        super().__init__(f"{key}: {value} — {problem}. Fix: {fix}")
        self.key, self.value, self.problem, self.fix = key, value, problem, fix


@dataclass(frozen=True)
class Role:
    """A role to assume: an entry of `aws:assumeRoles`, with the provider's default for what it does not name."""

    arn: str
    session_name: str = "cni-lab"
    external_id: str | None = None


@dataclass(frozen=True)
class AwsSettings:
    """Which account and region to ask: the keys under `aws:` in a stack file.

    What a stack file does not say comes from the environment: AWS_PROFILE, AWS_REGION, keys, SSO, a web identity, or
    the role of the machine. `roles` are assumed in this order, each with the credentials of the one before.
    """

    region: str | None = None
    profile: str | None = None
    roles: tuple[Role, ...] = ()
    config_file: str | None = None
    credentials_file: str | None = None
    sts_region: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, str]) -> AwsSettings:
        """From a stack's configuration: `aws:KEY` to text, and lists as JSON, as in `StackFile.config`.

        Raises BadSetting.
        """
        return cls(
            region=config.get("aws:region") or None,
            profile=config.get("aws:profile") or None,
            roles=tuple(_role(entry) for entry in _list("assumeRoles", config)),
            config_file=_only("sharedConfigFiles", config),
            credentials_file=_only("sharedCredentialsFiles", config),
            sts_region=config.get("aws:stsRegion") or None,
        )

    @property
    def account_words(self) -> str:
        """What the stack file says about the account, for messages; empty where the environment decides."""
        words = [f"aws:profile {self.profile}"] if self.profile else []
        return ", ".join([*words, *(f"role {role.arn}" for role in self.roles)])


def account_config(config: Mapping[str, str]) -> dict[str, str]:
    """The part of a stack's configuration that `AwsSettings.of` reads."""
    wanted = {f"aws:{key}" for key in ("region", *ACCOUNT_KEYS)}
    return {key: value for key, value in config.items() if key in wanted}


def clients(settings: AwsSettings, *, attempts: int = _ATTEMPTS) -> Callable[[str], Any]:
    """A function from a service's name, such as "ec2", to its client in the region.

    `attempts`: how often a call is made that finds no answer, or is throttled.
    Raises botocore's NoCredentialsError where no credentials are set, ProfileNotFound for an unknown profile, and
    ClientError where a role cannot be assumed.
    """
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    limits = Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        retries={"total_max_attempts": attempts, "mode": "standard"},
    )
    session = _session(settings)
    for role in settings.roles:
        session = _assume(session, role, settings, limits)
    if session.get_credentials() is None:
        raise NoCredentialsError
    made: dict[str, Any] = {}
    lock = threading.Lock()

    def client(service: str) -> Any:
        # A client may be used by several threads, a session may not. And EC2's client, with a method for each of 700
        # actions, takes longer to make than to use.
        with lock:
            if service not in made:
                made[service] = session.client(service, config=limits)
            return made[service]

    return client


def _session(settings: AwsSettings) -> Any:
    import boto3
    import botocore.session

    core = botocore.session.Session(profile=settings.profile)
    if settings.config_file:
        core.set_config_variable("config_file", settings.config_file)
    if settings.credentials_file:
        core.set_config_variable("credentials_file", settings.credentials_file)
    return boto3.Session(botocore_session=core, region_name=settings.region)


def _assume(session: Any, role: Role, settings: AwsSettings, limits: Any) -> Any:
    """A session with the role's credentials, which are renewed before they expire."""
    import boto3
    import botocore.session
    from botocore.credentials import (
        AssumeRoleCredentialFetcher,
        DeferredRefreshableCredentials,
    )
    from botocore.exceptions import NoCredentialsError

    source = session.get_credentials()
    if source is None:
        raise NoCredentialsError
    extra = {"RoleSessionName": role.session_name}
    if role.external_id is not None:
        extra["ExternalId"] = role.external_id
    fetcher = AssumeRoleCredentialFetcher(
        lambda service, **arguments: session.client(
            service, **{**arguments, "region_name": settings.sts_region or settings.region, "config": limits}
        ),
        source,
        role.arn,
        extra_args=extra,
    )
    core = botocore.session.Session()
    core._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    return boto3.Session(botocore_session=core, region_name=settings.region)


def _list(key: str, config: Mapping[str, str]) -> Sequence[Any]:
    text = config.get(f"aws:{key}")
    if not text:
        return ()
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise BadSetting(f"aws:{key}", text, "must be a list", "write each entry on a line of its own, after a dash")
    return found


def _only(key: str, config: Mapping[str, str]) -> str | None:
    """The one file of a list. The provider reads several, boto3 one."""
    files = _list(key, config)
    if len(files) > 1:
        problem = "is more than one file, and the commands that ask AWS read one"
        raise BadSetting(f"aws:{key}", json.dumps(files), problem, "merge them into one file")
    return str(files[0]) if files else None


def _role(entry: Any) -> Role:
    arn = entry.get("roleArn") if isinstance(entry, dict) else None
    if not isinstance(arn, str) or not arn:
        raise BadSetting("aws:assumeRoles", json.dumps(entry), "has no roleArn", "write - roleArn: arn:aws:iam::…")
    return Role(arn, str(entry.get("sessionName") or "cni-lab"), entry.get("externalId"))
