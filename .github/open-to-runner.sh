#!/usr/bin/env bash
# open-to-runner.sh STACK: opens a lab to this machine alone, by operatorCidrs in the checkout's stack file.
set -euo pipefail
file=stacks/Pulumi.${1:?}.yaml

address=$(curl --fail --silent --show-error --max-time 20 --retry 3 https://checkip.amazonaws.com)
if [[ ! $address =~ ^[0-9]{1,3}(\.[0-9]{1,3}){3}$ ]]; then
  echo "::error::checkip.amazonaws.com did not answer with an IPv4 address, but: ${address:0:80}"
  exit 1
fi
sed --in-place --regexp-extended "s#operatorCidrs: \[[^]]*\]#operatorCidrs: [$address/32]#" "$file"
if ! grep --quiet --fixed-strings "operatorCidrs: [$address/32]" "$file"; then
  echo "::error::$file has no operatorCidrs: […] on one line"
  exit 1
fi
