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
{{- $profile := .Values.appArmorProfile | default dict }}
{{- if and $profile.localhostProfile (ne $profile.type "Localhost") }}
{{- fail "appArmorProfile.localhostProfile is only for the type Localhost: set the type, or leave the profile out." }}
{{- end }}
{{- if and .Values.appArmorProfile (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- fail (printf "appArmorProfile needs Kubernetes 1.30 or later and this is %s: use the annotation container.apparmor.security.beta.kubernetes.io/oom-watcher in podAnnotations." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- include "oom-watcher.guardUpdate" . }}
{{- $address := .Values.config.metricsAddress | default "" }}
{{- if or (hasPrefix "127." $address) (eq "::1" $address) }}
{{- fail "config.metricsAddress is a loopback address: neither the kubelet's probes nor Prometheus reach it. Leave it empty." }}
{{- end }}
{{- include "oom-watcher.guardNames" . }}
{{- include "oom-watcher.guardMounts" . }}
{{- include "oom-watcher.guardMemory" . }}
{{- include "oom-watcher.guardSettings" . }}
{{- include "oom-watcher.guardAlerts" . }}
{{- range $name := list "serviceMonitor" "podMonitor" }}
{{- $monitor := index $.Values $name }}
{{- if and $monitor.interval $monitor.scrapeTimeout }}
{{- if gt (include "oom-watcher.milliseconds" $monitor.scrapeTimeout | int64) (include "oom-watcher.milliseconds" $monitor.interval | int64) }}
{{- fail (printf "%s.scrapeTimeout is %s, longer than the interval of %s: Prometheus refuses the whole configuration. Set it to the interval or less." $name $monitor.scrapeTimeout $monitor.interval) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "oom-watcher.guardUpdate" -}}
{{- $strategy := .Values.updateStrategy | default dict }}
{{- $rolling := $strategy.rollingUpdate | default dict }}
{{- $none := list "0" "0%" }}
{{- $surges := not (has (get $rolling "maxSurge" | default 0 | toString) $none) }}
{{- /* Kubernetes' own default is 1. */}}
{{- $leaves := not (has (ternary (get $rolling "maxUnavailable") 1 (hasKey $rolling "maxUnavailable") | toString) $none) }}
{{- if and .Values.config.pinDir $surges }}
{{- fail "config.pinDir and updateStrategy.rollingUpdate.maxSurge exclude each other: of two agents on a node only one can have the pinned hooks. Set maxSurge to 0." }}
{{- end }}
{{- if eq (get $strategy "type" | default "RollingUpdate") "RollingUpdate" }}
{{- if and $surges $leaves }}
{{- fail "updateStrategy.rollingUpdate has both maxSurge and maxUnavailable (10% by default), and Kubernetes takes one of them: with maxSurge set maxUnavailable to 0." }}
{{- end }}
{{- if not (or $surges $leaves) }}
{{- fail "updateStrategy.rollingUpdate has 0 for both maxSurge and maxUnavailable, so that no agent could ever be replaced: set one of them above 0." }}
{{- end }}
{{- end }}
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
later 8 MiB (5 measured) and 1 KiB for each series: half of it in the table, half in the text of four scrapes at once. A setting
that is null has the agent's own default.
*/}}
{{- define "oom-watcher.guardMemory" -}}
{{- $limits := (.Values.resources | default dict).limits | default dict }}
{{- $ring := .Values.config.ringBufferSize | default 524288 | int64 }}
{{- $series := .Values.config.maxSeries | default 5000 | int64 }}
{{- if get $limits "memory" }}
{{- $limit := get $limits "memory" | toString }}
{{- $bytes := include "oom-watcher.bytes" $limit | int64 }}
{{- if lt $bytes (add $ring 25165824) }}
{{- fail (printf "resources.limits.memory is %s, which does not hold config.ringBufferSize (%d bytes) and 24Mi for the agent: it would be killed at its start. Raise the limit or lower the size." $limit $ring) }}
{{- end }}
{{- if lt $bytes (add $ring 8388608 (mul $series 1024)) }}
{{- fail (printf "resources.limits.memory is %s, which does not hold config.maxSeries (%d, at 1Ki each), config.ringBufferSize (%d bytes) and 8Mi for the agent: it would be killed once it has that many. Raise the limit or lower the number." $limit $series $ring) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The bytes of a quantity of Kubernetes, such as 64Mi, 0.5G, 6e7 or 128974848000m. */}}
{{- define "oom-watcher.bytes" -}}
{{- $factors := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- $suffix := regexFind "([KMGTPE]i|[numkMGTPE])$" . }}
{{- mulf (trimSuffix $suffix . | float64) (get $factors $suffix | default 1.0) | floor | printf "%.0f" }}
{{- end }}

{{/* A setting that is given twice: the later one would win, and nobody would see which that is. */}}
{{- define "oom-watcher.guardSettings" -}}
{{- $own := list "NODE_NAME" "POD_UID" }}
{{- range $key, $value := .Values.config }}
{{- $own = append $own (include "oom-watcher.envName" $key) }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if and (hasKey . "value") (hasKey . "valueFrom") }}
{{- fail (printf "extraEnv gives %s both a value and valueFrom: Kubernetes takes one of them." .name) }}
{{- end }}
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

{{/* The milliseconds of a duration of Prometheus, such as 1m30s. */}}
{{- define "oom-watcher.milliseconds" -}}
{{- $factors := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 "w" 604800000 "y" 31536000000 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|[smhdwy])" . -1 }}
{{- $unit := regexFind "[a-z]+" . }}
{{- $sum = add $sum (mul (trimSuffix $unit . | int64) (get $factors $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}

{{- define "oom-watcher.guardAlerts" -}}
{{- if hasKey (.Values.prometheusRule.alertLabels | default dict) "severity" }}
{{- fail "prometheusRule.alertLabels sets severity, which every alert has of its own: use prometheusRule.severities." }}
{{- end }}
{{- $known := list }}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups }}
{{- range .rules }}
{{- $known = append $known .alert }}
{{- end }}
{{- end }}
{{- range concat (.Values.prometheusRule.disabled | default list) (keys (.Values.prometheusRule.severities | default dict)) }}
{{- if not (has . $known) }}
{{- fail (printf "prometheusRule names the alert %s, which does not exist. The alerts are: %s." . (join ", " $known)) }}
{{- end }}
{{- end }}
{{- end }}
