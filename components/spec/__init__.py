"""The stack file as typed, validated, frozen values. Nothing here imports pulumi."""
