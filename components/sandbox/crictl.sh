#!/bin/bash
# Stand-in for crictl on a sandbox's node, which has no containers: `ps --quiet --name '^calico-node$'` names one, and
# `exec ID birdcl … show protocols` in it prints /var/lib/sandbox-bird, BIRD's sessions, which a test may rewrite.
set -euo pipefail

id=3f0b5a7e5c9d
case "$*" in
  ps*calico-node*) echo "$id" ;;
  "exec $id birdcl "*"show protocols"*)
    [[ -e /var/lib/sandbox-bird ]] || { echo "Unable to connect to server control socket" >&2 && exit 1; }
    cat /var/lib/sandbox-bird
    ;;
  *) echo "crictl: a sandbox knows calico-node alone, not: $*" >&2 && exit 1 ;;
esac
