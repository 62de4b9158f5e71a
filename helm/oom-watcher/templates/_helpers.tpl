{{/* Names, labels and the few facts that several templates derive from the values. */}}

{{- define "oom-watcher.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "oom-watcher.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "oom-watcher.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Objects without a namespace carry the release's in their name, so that two releases do not share them. */}}
{{- define "oom-watcher.clusterName" -}}
{{- $full := include "oom-watcher.fullname" . }}
{{- if eq $full .Release.Namespace }}{{ $full }}{{ else }}{{ printf "%s-%s" .Release.Namespace $full | trunc 63 | trimAll "-" }}{{ end }}
{{- end }}

{{- define "oom-watcher.selectorLabels" -}}
app.kubernetes.io/name: {{ include "oom-watcher.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "oom-watcher.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: oom-watcher
{{ include "oom-watcher.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of the agent's pods: without the chart's version, so that a new chart alone does not restart every agent. */}}
{{- define "oom-watcher.podLabels" -}}
app.kubernetes.io/part-of: oom-watcher
{{ include "oom-watcher.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* `annotations:` of an object: the common ones and those of the list `extra`. Call: (dict "root" $ "extra" .Values.x) */}}
{{- define "oom-watcher.annotations" -}}
{{- with merge (dict) (.extra | default dict) .root.Values.commonAnnotations -}}
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
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
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
