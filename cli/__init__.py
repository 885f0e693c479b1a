"""The front door's commands: plan, up, preview, destroy, verify, walk, reap, test."""
