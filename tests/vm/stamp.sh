#!/usr/bin/env bash
# Prints a checksum of everything that the disk of the virtual machine for tests is made from.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cat "$here"/*.sh "$here/run-command.service" "$here"/../../requirements*.txt | sha256sum | cut -d ' ' -f 1
