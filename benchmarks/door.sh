#!/usr/bin/env bash
# What sshd runs of each command: the step as it comes, with the locks of this machine, for all share one file system.
set -euo pipefail
sed "s,/run/lock/,${MACHINE:?}/," | bash -c "${SSH_ORIGINAL_COMMAND:?}"
