# Completion of cni-lab's ./lab for bash. To load it: source <(./lab completion bash)
_cni_lab_completion() {
  local line=${COMP_LINE:0:COMP_POINT} current='' words cword
  read -ra words <<<"$line"
  cword=${#words[@]}
  if [[ $line != *[[:space:]] ]]; then
    cword=$((cword - 1))
    current=${words[cword]}
  fi
  mapfile -t COMPREPLY < <(_LAB_COMPLETE=complete_bash COMP_WORDS=$line COMP_CWORD=$cword @LAB@)
  # bash takes what follows an @ for a word of its own, and replaces that part only.
  if [[ $current == *@* && $COMP_WORDBREAKS == *@* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${current%@*}@"}")
  fi
}
complete -o default -F _cni_lab_completion lab
