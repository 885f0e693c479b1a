# shellcheck shell=bash
# Stands for every script of components/node: work that takes a fixed time.
sleep "${WORK_SECONDS:?}"
