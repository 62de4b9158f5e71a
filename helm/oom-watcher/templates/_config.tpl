{{/*
The agent's environment: one variable for each key of `config`, named by rule (`ringBufferSize` is RING_BUFFER_SIZE), so that
a new setting of the agent needs a line in values.yaml and its schema, and nothing here.
*/}}

{{- define "oom-watcher.configEnv" -}}
{{- range $key, $value := .Values.config }}
{{- $text := "" }}
{{- if kindIs "slice" $value }}
{{- $text = join "," $value }}
{{- else if kindIs "float64" $value }}
{{- $text = $value | int64 | toString }}
{{- else if not (kindIs "invalid" $value) }}
{{- $text = $value | toString }}
{{- end }}
{{- if and $text (eq $key "pinDir") }}
{{- $text = include "oom-watcher.pinMount" $ }}
{{- end }}
{{- if $text }}
- name: {{ include "oom-watcher.envName" $key }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "oom-watcher.envName" -}}
{{ . | snakecase | upper }}
{{- end }}

{{- define "oom-watcher.capabilities" -}}
- BPF
- PERFMON
{{- if .Values.capabilities.sysResource }}
- SYS_RESOURCE
{{- end }}
{{- if .Values.capabilities.syslog }}
- SYSLOG
{{- end }}
{{- if .Values.capabilities.sysAdmin }}
- SYS_ADMIN
{{- end }}
{{- end }}

{{/* Where config.pinDir is in the container: not below /sys, which is sysfs there, and in which no runtime can make a directory. */}}
{{- define "oom-watcher.pinMount" -}}
/pins
{{- end }}

{{/* Host paths: a list of {name, key of config, path, type}; each is mounted at its own path or at `mountPath`, read-only unless it is `writable`. */}}
{{- define "oom-watcher.hostMounts" -}}
{{- with .Values.config.containerLogDir }}
- {name: container-log-links, key: containerLogDir, path: {{ . | quote }}, type: Directory}
{{- end }}
{{- with .Values.config.podLogDir }}
- {name: pod-logs, key: podLogDir, path: {{ . | quote }}, type: Directory}
{{- end }}
{{- with .Values.config.crioBundleDir }}
- {name: crio-bundles, key: crioBundleDir, path: {{ . | quote }}, type: Directory}
{{- end }}
{{- with .Values.config.criSocket }}
{{- /* The socket and not its directory: below that are the mounts of all containers, which a bind mount would hold. */}}
- {name: cri-socket, key: criSocket, path: {{ . | quote }}, type: Socket}
{{- end }}
{{- with .Values.config.dockerContainerDir }}
- {name: docker-containers, key: dockerContainerDir, path: {{ . | quote }}, type: Directory}
{{- end }}
{{- with .Values.config.podmanContainerDir }}
{{- /* CRI-O may have the same one. */}}
{{- if ne . $.Values.config.crioBundleDir }}
- {name: podman-containers, key: podmanContainerDir, path: {{ . | quote }}, type: Directory}
{{- end }}
{{- end }}
{{- with .Values.config.stateDir }}
- {name: state, key: stateDir, path: {{ . | quote }}, type: DirectoryOrCreate, writable: true}
{{- end }}
{{- with .Values.config.pinDir }}
- {name: pins, key: pinDir, path: {{ . | quote }}, type: DirectoryOrCreate, writable: true, mountPath: {{ include "oom-watcher.pinMount" $ }}}
{{- end }}
{{- end }}

{{/* The kinds of volume that the pod has, in the words of SecurityContextConstraints, which name two of them otherwise than a pod does. */}}
{{- define "oom-watcher.volumeTypes" -}}
{{- $renamed := dict "cephfs" "cephFS" "vsphereVolume" "vsphere" }}
{{- $types := list }}
{{- if include "oom-watcher.hostMounts" . | fromYamlArray }}
{{- $types = append $types "hostPath" }}
{{- end }}
{{- if include "oom-watcher.usesApi" . }}
{{- /* The token. */}}
{{- $types = append $types "projected" }}
{{- end }}
{{- range .Values.extraVolumes }}
{{- /* A volume without a source is an emptyDir. */}}
{{- $source := omit . "name" | keys | sortAlpha | first | default "emptyDir" }}
{{- $types = append $types (get $renamed $source | default $source) }}
{{- end }}
{{- $types | uniq | toYaml }}
{{- end }}
