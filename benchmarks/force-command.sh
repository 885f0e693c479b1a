#!/usr/bin/env bash
# The ForceCommand of each sshd: runs the step as it arrives, with the locks in the folder of this machine, because all
# machines share one file system.
set -euo pipefail
sed "s,/run/lock/,${MACHINE:?}/," | bash -c "${SSH_ORIGINAL_COMMAND:?}"
