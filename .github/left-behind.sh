#!/usr/bin/env bash
# left-behind.sh REPORT RUN: one open issue for what a night left behind; the nights after comment on it.
set -euo pipefail
report=${1:?} run=${2:?}
label='left-behind'

body=$(mktemp)
trap 'rm -f -- "$body"' EXIT
if [[ -s $report ]]; then
  # An issue holds 65,536 characters.
  head -c 60000 -- "$report" >"$body"
else
  printf 'The job did not get as far as a report: look for ephemeral stacks and their things by hand.\n' >"$body"
fi
printf '\n%s\n' "$run" >>"$body"

gh label create "$label" --force --color B60205 --description 'Ephemeral stacks or things that should be gone'
number=$(gh issue list --label "$label" --state open --limit 1 --json number --jq '.[0].number // empty')
if [[ -n $number ]]; then
  gh issue comment "$number" --body-file "$body"
else
  gh issue create --title 'Ephemeral stacks stayed behind' --label "$label" --body-file "$body"
fi
