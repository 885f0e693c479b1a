#!/usr/bin/env bash
# Stand-in for crictl on a sandbox's node, which has no containers. `ps --quiet --name '^calico-node$'` prints an id;
# `exec ID birdcl … show protocols` prints /var/lib/sandbox-bird, the sessions that BIRD would have. Tests rewrite it.
set -euo pipefail

id=3f0b5a7e5c9d
case "$*" in
  ps*calico-node*) echo "$id" ;;
  "exec $id birdcl "*"show protocols"*)
    [[ -e /var/lib/sandbox-bird ]] || { echo "Unable to connect to server control socket" >&2 && exit 1; }
    cat /var/lib/sandbox-bird
    ;;
  *) echo "crictl: in a sandbox it answers for calico-node's birdcl only, not for: $*" >&2 && exit 1 ;;
esac
