# Completion of cni-lab's ./lab for fish. To load it: ./lab completion fish | source
function __cni_lab_complete
    _LAB_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] _TYPER_COMPLETE_ARGS=(commandline -cp) @LAB@
end
complete --command lab --no-files --condition '__cni_lab_complete is-args' --arguments '(__cni_lab_complete get-args)'
