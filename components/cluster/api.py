"""The cluster's API for the components that follow: one Pulumi provider, and one way to make an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes

PROVIDER_VERSION = version("pulumi-kubernetes")


class KubeObject(pulumi.CustomResource):
    """One Kubernetes object of any kind, given as its manifest, so that a preview shows it whole.

    `patch`: merge the manifest into an object that something else owns (server-side apply; created when missing).
    """

    def __init__(
        self, name: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions, *, patch: bool = False
    ) -> None:
        group_version: str = manifest["apiVersion"]
        token = f"kubernetes:{group_version if '/' in group_version else 'core/' + group_version}:{manifest['kind']}"
        super().__init__(
            token + ("Patch" if patch else ""),
            name,
            dict(manifest),
            pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(version=PROVIDER_VERSION)),
        )


@dataclass(frozen=True)
class Api:
    """`ready`: the command that initialised the cluster. Objects wait for it and are deleted with it: when the cluster
    is destroyed, nothing asks its API to delete them one by one."""

    provider: kubernetes.Provider
    ready: pulumi.Resource

    def object(
        self,
        name: str,
        manifest: Mapping[str, Any],
        *,
        parent: pulumi.Resource,
        after: Sequence[pulumi.Resource] = (),
        patch: bool = False,
    ) -> KubeObject:
        """Make one object when the API answers and every resource in `after` is done."""
        opts = pulumi.ResourceOptions(
            parent=parent, provider=self.provider, depends_on=[self.ready, *after], deleted_with=self.ready
        )
        return KubeObject(name, manifest, opts, patch=patch)
