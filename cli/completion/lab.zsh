#compdef lab
# Completion of cni-lab's ./lab for zsh. To load it, after compinit: source <(./lab completion zsh)
_cni_lab_completion() {
  eval "$(_LAB_COMPLETE=complete_zsh _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" @LAB@)"
}
compdef _cni_lab_completion lab
