{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* At most 55 characters, so that "-metrics" and "-keys" still fit into a name of 63. */}}
{{- define "headrace.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- end }}

{{- define "headrace.selectorLabels" -}}
app.kubernetes.io/name: {{ include "headrace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "headrace.metadata" -}}
name: {{ include "headrace.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
{{- end }}

{{- define "headrace.serviceAccountName" -}}
{{- $name := .Values.serviceAccount.create | ternary (include "headrace.fullname" .) "default" -}}
{{- default $name .Values.serviceAccount.name -}}
{{- end }}

{{/* The Secret with the text of headrace.env; empty if there is none. */}}
{{- define "headrace.keysSecret" -}}
{{- if .Values.keys.envFile -}}
{{- include "headrace.fullname" . }}-keys
{{- else -}}
{{- .Values.keys.existingSecret -}}
{{- end -}}
{{- end }}
