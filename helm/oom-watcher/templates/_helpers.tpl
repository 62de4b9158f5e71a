{{/* Names, labels and the few facts that several templates derive from the values. */}}

{{- define "oom-watcher.name" -}}
{{- default .Chart.Name .Values.nameOverride | replace "." "-" | trunc 63 | trimAll "-" }}
{{- end }}

{{/* Without dots, which the name of a release may have and that of a Service may not. */}}
{{- define "oom-watcher.fullname" -}}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $name := include "oom-watcher.name" . }}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- $full | replace "." "-" | trunc 63 | trimAll "-" }}
{{- end }}

{{/*
Objects without a namespace carry the release's in their name, so that two releases do not share them: with a dot, which neither
of the two parts has, and whole, since such a name may have 253 characters. `helm lint` knows no namespace.
*/}}
{{- define "oom-watcher.clusterName" -}}
{{- $full := include "oom-watcher.fullname" . }}
{{- if eq $full .Release.Namespace }}{{ $full }}{{ else }}{{ printf "%s.%s" .Release.Namespace $full | trunc 253 | trimPrefix "." }}{{ end }}
{{- end }}

{{/*
Several maps as one: of a key that two of them have, the later one's value. Written one after the other the key would be there
twice, which some parsers refuse and others settle each in its own way. Call with a list of maps; an empty one may be null.
*/}}
{{- define "oom-watcher.merged" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- $_ := set $all $key $value }}
{{- end }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* The labels that selectors go by. Call: (dict "root" $ "component" "agent") */}}
{{- define "oom-watcher.identity" -}}
{{- dict "app.kubernetes.io/name" (include "oom-watcher.name" .root) "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/component" .component | toYaml }}
{{- end }}

{{- define "oom-watcher.selectorLabels" -}}
{{- include "oom-watcher.identity" (dict "root" . "component" "agent") }}
{{- end }}

{{/* Labels of an object: the chart's, those of every object, and those of this one (`extra`). Call: (dict "root" $ "extra" .Values.x) */}}
{{- define "oom-watcher.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $own := dict "helm.sh/chart" $chart "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/part-of" "oom-watcher" }}
{{- include "oom-watcher.merged" (list $own (include "oom-watcher.selectorLabels" .root | fromYaml) .root.Values.commonLabels .extra) }}
{{- end }}

{{/*
Labels of a pod: without the chart's version, so that a new chart alone does not restart every agent. What selectors go by comes
last. Call: (dict "root" $ "component" "agent" "extra" .Values.x)
*/}}
{{- define "oom-watcher.podLabels" -}}
{{- $own := dict "app.kubernetes.io/part-of" "oom-watcher" }}
{{- include "oom-watcher.merged" (list $own .root.Values.commonLabels .extra (include "oom-watcher.identity" . | fromYaml)) }}
{{- end }}

{{/* `annotations:` of an object: the common ones and those of the maps in `extra`. Call: (dict "root" $ "extra" (list .Values.x)) */}}
{{- define "oom-watcher.annotations" -}}
{{- with include "oom-watcher.merged" (prepend (.extra | default list) .root.Values.commonAnnotations) | fromYaml -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "oom-watcher.image" -}}
{{- $image := .image }}
{{- if $image.digest -}}
{{ $image.repository }}{{ with $image.tag }}:{{ . }}{{ end }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .defaultTag }}
{{- end }}
{{- end }}

{{- define "oom-watcher.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "oom-watcher.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{/* "true" when the agent talks to the API server: only then are there a token, a role and a way out. */}}
{{- define "oom-watcher.usesApi" -}}
{{- if or .Values.config.kubernetesEnrichment .Values.config.kubernetesEvents }}true{{ end }}
{{- end }}

{{/* Value of the scrape's label `job`: what `jobLabel: app.kubernetes.io/name` gives. */}}
{{- define "oom-watcher.job" -}}
{{ .Values.prometheusRule.job | default (include "oom-watcher.name" .) }}
{{- end }}

{{/* Scrape settings that ServiceMonitor and PodMonitor share. Call with the monitor's values. */}}
{{- define "oom-watcher.endpoint" -}}
port: metrics
path: /metrics
# The agent's series carry namespace, pod and container of the victim. Without this Prometheus renames them to exported_*.
honorLabels: true
{{- with .interval }}
interval: {{ . | quote }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . | quote }}
{{- end }}
relabelings:
  # The agent's own series and `up` then name the node too.
  - action: replace
    sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  {{- with .relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
