# shellcheck shell=bash
# Replaces every script of components/node by work that takes a fixed time.
sleep "${WORK_SECONDS:?}"
