# shellcheck shell=bash
# Why nodes and pods of the cluster are not Ready, as Kubernetes says it, for the waits of the scripts that follow.
# kubectl's KUBECONFIG is set when these functions are called.
# shellcheck disable=SC2016  # the variables of go-templates and awk

# Waiting does not help against these: so many evicted pods while a node is under pressure, so many restarts of one
# container, or a pod that waits because of a node that is under pressure for so long. kubelet reports pressure for five
# minutes after its end (evictionPressureTransitionPeriod). Five restarts take five minutes, because kubelet's back-off
# doubles, and each further one takes five more.
MAX_EVICTED_PODS=5 MAX_RESTARTS=$((4 + SLOWDOWN)) MAX_PRESSURE_SECONDS=360

# The go-templates of the lists. A record ends with \036, its fields with \037, because messages may contain newlines.
#   node NAME TYPE SINCE REASON: a condition that is not as it should be.
NODE_RECORDS='{{range .items}}{{$name := .metadata.name}}{{range .status.conditions}}{{$bad := false}}
  {{- if eq .type "Ready"}}{{$bad = ne .status "True"}}{{end}}
  {{- if or (eq .type "DiskPressure") (eq .type "MemoryPressure") (eq .type "PIDPressure")}}
  {{- $bad = eq .status "True"}}{{end}}
  {{- if $bad}}{{"node\x1f"}}{{$name}}{{"\x1f"}}{{.type}}{{"\x1f"}}{{.lastTransitionTime}}{{"\x1f"}}
  {{- with .reason}}{{.}}{{end}}{{with .message}}: {{.}}{{end}}{{"\x1e"}}{{end}}{{end}}{{end}}'
#   event TIME KIND NAME REASON MESSAGE
EVENT_RECORDS='{{range .items}}{{"event\x1f"}}{{.lastTimestamp}}{{"\x1f"}}{{.involvedObject.kind}}{{"\x1f"}}
  {{- .involvedObject.name}}{{"\x1f"}}{{.reason}}{{"\x1f"}}{{.message}}{{"\x1e"}}{{end}}'
#   failed REASON MESSAGE: a pod that ended, such as one that kubelet evicted.
#   pod NAME NODE REASON: one that is not Ready.
POD_RECORDS='{{define "ended"}}ended with status {{.exitCode}}{{with .reason}} ({{.}}){{end}}
  {{- with .message}}: {{.}}{{end}}{{end}}
  {{- define "container"}}{{$shown := not .ready}}{{$name := .name}}
  {{- with .state}}{{with .waiting}}{{with .reason}}{{if eq . "PodInitializing"}}{{$shown = false}}{{end}}{{end}}{{end}}
  {{- end}}{{if $shown}}; container {{$name}}: {{with .state}}
  {{- with .waiting}}{{.reason}}{{with .message}}: {{.}}{{end}}{{end}}
  {{- with .terminated}}{{template "ended" .}}{{end}}
  {{- if .running}}it runs, and is not ready{{end}}{{end}}
  {{- with .lastState}}{{with .terminated}}; its last run {{template "ended" .}}{{end}}{{end}}
  {{- with .restartCount}}; restarts: {{.}}{{end}}{{end}}{{end}}
  {{- range .items}}{{$ready := false}}{{$homeless := ""}}
  {{- range .status.conditions}}
  {{- if eq .type "Ready"}}{{$ready = eq .status "True"}}{{end}}
  {{- if eq .type "PodScheduled"}}{{if eq .status "False"}}{{with .message}}{{$homeless = .}}{{end}}{{end}}{{end}}
  {{- end}}
  {{- if eq .status.phase "Failed"}}{{"failed\x1f"}}{{with .status.reason}}{{.}}{{else}}Failed{{end}}{{"\x1f"}}
  {{- with .status.message}}{{.}}{{end}}{{"\x1e"}}
  {{- else if not (or $ready .metadata.deletionTimestamp (eq .status.phase "Succeeded"))}}
  {{- "pod\x1f"}}{{.metadata.name}}{{"\x1f"}}{{with .spec.nodeName}}{{.}}{{end}}{{"\x1f"}}
  {{- if $homeless}}; no node takes it: {{$homeless}}{{end}}
  {{- range .status.initContainerStatuses}}{{template "container" .}}{{end}}
  {{- range .status.containerStatuses}}{{template "container" .}}{{end}}{{"\x1e"}}{{end}}{{end}}'

# The records as sentences. Of a pod's events the last one counts, unless it repeats the pod's status. Exits with
# `hopeless` where waiting does not help.
SENTENCES='
  BEGIN { RS = "\036"; FS = "\037" }
  { gsub(/[ \t\n]+/, " "); sub(/ $/, "") }
  $1 == "node" {
    print "node " $2 (($3 == "Ready") ? " is not Ready: " : " has " $3 " since " $4 ": ") $5
    if ($3 != "Ready") { pressure = 1; if ($4 < limit) { long = 1; long_on[$2] = 1 } }
  }
  $1 == "event" && $3 == "Pod" && $5 !~ /^(BackOff|Failed|FailedScheduling|Evicted)$/ && $2 >= time[$4] {
    time[$4] = $2; last[$4] = $5 ": " $6
  }
  $1 == "event" && $5 == "FailedCreate" { refused[$3 " " $4] = $6 }
  $1 == "failed" { failed[$2]++; said[$2] = $3 }
  $1 == "pod" {
    count++; name[count] = $2; node[count] = $3; reason[count] = $4
    if ($4 ~ /CrashLoopBackOff/ && match($4, /restarts: [0-9]+/) &&
        substr($4, RSTART + 10) + 0 >= restarts) stop = 1
  }
  END {
    for (i = 1; i <= count; i++) {
      event = last[name[i]]
      text = substr(reason[i], 3) ((reason[i] != "" && event != "") ? "; " : "") event
      if (long && (node[i] in long_on || text ~ /pressure/)) stop = 1
      print "pod " name[i] (node[i] == "" ? "" : " on " node[i]) ": " (text == "" ? "not started yet" : text)
    }
    fflush()  # sort prints by itself; awk has no order of its own for these
    for (key in refused) print key ": FailedCreate: " refused[key] | "sort"
    for (key in failed) {
      print failed[key] " pods ended as " key (said[key] == "" ? "" : ", the last one: " said[key]) | "sort"
      if (key == "Evicted" && pressure && failed[key] >= evicted) stop = 1
    }
    close("sort")
    exit stop ? hopeless : 0
  }'

# reasons NAMESPACE…: a line for each node and each pod of the namespaces that is not as it should be. Returns HOPELESS
# where waiting does not help.
reasons() {
  local namespace limit
  limit=$(date -u -d "-$MAX_PRESSURE_SECONDS seconds" +%FT%TZ)
  {
    kube get nodes --output "go-template=$NODE_RECORDS"
    for namespace; do
      kube --namespace "$namespace" get events --field-selector type=Warning --output "go-template=$EVENT_RECORDS"
      kube --namespace "$namespace" get pods --output "go-template=$POD_RECORDS"
    done
  } | awk -v limit="$limit" -v restarts="$MAX_RESTARTS" -v evicted="$MAX_EVICTED_PODS" -v hopeless="$HOPELESS" \
    "$SENTENCES"
}

# reasons_here: a line for each pod of this node that is not as it should be. The node's own credentials show it no
# others, and no events.
reasons_here() {
  [[ -e $KUBELET_CONF ]] || return 0
  kube --kubeconfig "$KUBELET_CONF" get pods --all-namespaces --field-selector "spec.nodeName=$(hostname)" \
    --output "go-template=$POD_RECORDS" | awk -v restarts="$MAX_RESTARTS" -v hopeless="$HOPELESS" "$SENTENCES"
}

# with_reasons "WHY…" COMMAND…: what wait_for repeats. Where COMMAND fails and the wait has lasted QUIET_SECONDS, its
# output is followed by that of the command WHY, such as "reasons kube-system" or reasons_here.
with_reasons() {
  local status=0
  local -a why
  read -ra why <<<"$1"
  shift
  if "$@"; then return 0; fi
  ((WAITED_SECONDS >= QUIET_SECONDS)) || return 1
  "${why[@]}" || status=$?
  ((status == HOPELESS)) || status=1
  return "$status"
}
