{{/* Combinations that render but do not work: each fails with a sentence that says what to change. */}}

{{- define "oom-watcher.guards" -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled are both true: every agent would be scraped twice and every kill counted twice. Enable one of them." }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs the Service that it selects: set service.enabled=true, or use podMonitor.enabled instead." }}
{{- end }}
{{- if and (include "oom-watcher.usesApi" .) (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: the namespace's account \"default\" would get rights on pods and events. Name an account, or set config.kubernetesEnrichment=false and config.kubernetesEvents=false." }}
{{- end }}
{{- if and .Values.openshift.enabled (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "openshift.enabled is true, serviceAccount.create is false and serviceAccount.name is empty: every pod of the namespace that names no account would get what the agent's SecurityContextConstraints allows. Name an account." }}
{{- end }}
{{- if and .Values.rbac.listPods (not .Values.config.kubernetesEnrichment) }}
{{- fail "rbac.listPods grants a right that nothing uses while config.kubernetesEnrichment is false: set one of them the other way." }}
{{- end }}
{{- if and .Values.rbac.listPods (not .Values.rbac.create) }}
{{- fail "rbac.listPods is part of the role that rbac.create=false leaves out: it would grant nothing. Set rbac.create=true, or leave listPods out and put `list` on pods into your own role." }}
{{- end }}
{{- if and .Values.appArmorProfile (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "appArmorProfile needs Kubernetes 1.30 or later and this is %s: use the annotation container.apparmor.security.beta.kubernetes.io/oom-watcher in podAnnotations." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- $surge := dig "rollingUpdate" "maxSurge" 0 .Values.updateStrategy | toString }}
{{- if and .Values.config.pinDir (not (has $surge (list "0" "0%"))) }}
{{- fail "config.pinDir and updateStrategy.rollingUpdate.maxSurge exclude each other: of two agents on a node only one can have the pinned hooks. Set maxSurge to 0." }}
{{- end }}
{{- $address := .Values.config.metricsAddress | default "" }}
{{- if or (hasPrefix "127." $address) (eq "::1" $address) }}
{{- fail "config.metricsAddress is a loopback address: neither the kubelet's probes nor Prometheus reach it. Leave it empty." }}
{{- end }}
{{- include "oom-watcher.guardNames" . }}
{{- include "oom-watcher.guardMounts" . }}
{{- include "oom-watcher.guardMemory" . }}
{{- include "oom-watcher.guardSettings" . }}
{{- include "oom-watcher.guardAlerts" . }}
{{- end }}

{{- define "oom-watcher.guardNames" -}}
{{- $full := include "oom-watcher.fullname" . }}
{{- if and .Values.service.enabled (regexMatch "^[0-9]" $full) }}
{{- fail (printf "The Service would be named %s, and the name of a Service must begin with a letter: set fullnameOverride, or service.enabled=false." $full) }}
{{- end }}
{{- range $value := list "commonLabels" "podLabels" }}
{{- range $label := include "oom-watcher.selectorLabels" $ | fromYaml | keys | sortAlpha }}
{{- if hasKey (index $.Values $value | default dict) $label }}
{{- fail (printf "%s sets %s, by which the chart's selectors find the agents: leave it out. nameOverride changes the name." $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Kubernetes refuses two mounts at one place, and two values with one path are a slip of whoever wrote them. */}}
{{- define "oom-watcher.guardMounts" -}}
{{- $taken := dict "/oom-watcher" "the agent's program" }}
{{- $volumes := dict }}
{{- range include "oom-watcher.hostMounts" . | fromYamlArray }}
{{- $value := printf "config.%s" .key }}
{{- $place := .mountPath | default .path }}
{{- if regexMatch "^/(proc|sys|dev)(/|$)" $place }}
{{- fail (printf "%s is %s: nothing can be mounted there, because the container has a file system of the kernel in that place." $value $place) }}
{{- end }}
{{- range uniq (list .path $place) }}
{{- with get $taken . }}
{{- fail (printf "%s and %s have the same place, %s: give each its own, or leave one out." . $value $place) }}
{{- end }}
{{- $_ := set $taken . $value }}
{{- end }}
{{- $_ := set $volumes .name $value }}
{{- end }}
{{- range .Values.extraVolumeMounts }}
{{- $place := .mountPath | trimSuffix "/" }}
{{- with get $taken $place }}
{{- fail (printf "extraVolumeMounts has the same place as %s, %s: mount it elsewhere." . $place) }}
{{- end }}
{{- $_ := set $taken $place "another of extraVolumeMounts" }}
{{- end }}
{{- range $volume := .Values.extraVolumes }}
{{- with get $volumes $volume.name }}
{{- fail (printf "extraVolumes has the name %s, which %s has too: choose another." $volume.name .) }}
{{- end }}
{{- $_ := set $volumes .name "another of extraVolumes" }}
{{- end }}
{{- end }}

{{/*
What the agent takes beside the ring buffer: 24 MiB at its start, when it reads the kernel's type information (19 measured), or
later 8 MiB (5 measured) and 1 KiB for each series: half of it in the table, half in the text of four scrapes at once. A limit in
other units is let pass.
*/}}
{{- define "oom-watcher.guardMemory" -}}
{{- $limit := dig "limits" "memory" "" .Values.resources | toString }}
{{- $ring := .Values.config.ringBufferSize | default 0 | int64 }}
{{- $series := .Values.config.maxSeries | default 0 | int64 }}
{{- if regexMatch "^[0-9]+[MG]i$" $limit }}
{{- $bytes := mul (regexFind "^[0-9]+" $limit | int64) (ternary 1073741824 1048576 (hasSuffix "Gi" $limit)) }}
{{- if lt $bytes (add $ring 25165824) }}
{{- fail (printf "resources.limits.memory is %s, which does not hold config.ringBufferSize (%d bytes) and 24Mi for the agent: it would be killed at its start. Raise the limit or lower the size." $limit $ring) }}
{{- end }}
{{- if lt $bytes (add $ring 8388608 (mul $series 1024)) }}
{{- fail (printf "resources.limits.memory is %s, which does not hold config.maxSeries (%d, at 1Ki each), config.ringBufferSize (%d bytes) and 8Mi for the agent: it would be killed once it has that many. Raise the limit or lower the number." $limit $series $ring) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A setting that is given twice: the later one would win, and nobody would see which that is. */}}
{{- define "oom-watcher.guardSettings" -}}
{{- $own := list "NODE_NAME" "POD_UID" }}
{{- range $key, $value := .Values.config }}
{{- $own = append $own (include "oom-watcher.envName" $key) }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if has .name $own }}
{{- fail (printf "extraEnv sets %s, which the chart sets itself: use the key of config instead." .name) }}
{{- end }}
{{- end }}
{{- range .Values.extraArgs }}
{{- $flag := . | toString | splitList "=" | first }}
{{- if and (hasPrefix "--" $flag) (has (trimPrefix "--" $flag | snakecase | upper) $own) }}
{{- fail (printf "extraArgs sets %s, which the chart sets itself: use the key of config instead." $flag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "oom-watcher.guardAlerts" -}}
{{- $known := list }}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups }}
{{- range .rules }}
{{- $known = append $known .alert }}
{{- end }}
{{- end }}
{{- range concat .Values.prometheusRule.disabled (keys .Values.prometheusRule.severities) }}
{{- if not (has . $known) }}
{{- fail (printf "prometheusRule names the alert %s, which does not exist. The alerts are: %s." . (join ", " $known)) }}
{{- end }}
{{- end }}
{{- end }}
