#!/usr/bin/env bash
# modules.sh MODULE…: prints "MODULE<TAB>REASON" for each kernel module that this kernel lacks. Loads none.
# Environment: TUNNEL_LINKS, and MODULES_LIBRARY: the path of components/node/modules.sh.
set -euo pipefail
: "${MODULES_LIBRARY:?}"

# The library asks modprobe, which would load the module.
if [[ -n $(command -v modprobe) ]]; then
  modprobe() { command modprobe --dry-run "$@"; }
fi
# shellcheck source=components/node/modules.sh
source "$MODULES_LIBRARY"

for module in "$@"; do
  reason=$(has_module "$module" 2>&1) || printf '%s\t%s\n' "$module" "${reason//[$'\n\t']/; }"
done
