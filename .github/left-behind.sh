#!/usr/bin/env bash
# left-behind.sh REPORT RUN: opens an issue about what a night left behind, or comments on the one that is open.
set -euo pipefail
report=${1:?} run=${2:?}
label='left-behind'

body=$(mktemp)
trap 'rm -f -- "$body"' EXIT
if [[ -s $report ]]; then
  # The limit of an issue is 65,536 characters.
  head -c 60000 -- "$report" >"$body"
else
  printf 'The job ended before it wrote a report: look for ephemeral stacks and what is left of them.\n' >"$body"
fi
printf '\n%s\n' "$run" >>"$body"

gh label create "$label" --force --color B60205 --description 'Ephemeral stacks or AWS resources that should be gone'
number=$(gh issue list --label "$label" --state open --limit 1 --json number --jq '.[0].number // empty')
if [[ -n $number ]]; then
  gh issue comment "$number" --body-file "$body"
else
  gh issue create --title 'Ephemeral stacks were left behind' --label "$label" --body-file "$body"
fi
