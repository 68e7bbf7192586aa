{{/* What is derived from the configuration. Each of these returns JSON or text; nothing else in the chart reads it. */}}

{{/* The configuration with the chart's pipeline_settings below its own, as JSON. */}}
{{- define "headrace.config" -}}
{{- $own := deepCopy .Values.config -}}
{{- if .Values.configFile -}}
  {{- if .Values.config -}}
    {{- fail "both config and configFile are set: set one of them" -}}
  {{- end -}}
  {{- $own = fromYaml .Values.configFile -}}
  {{- if hasKey $own "Error" -}}
    {{- fail (printf "configFile is not a mapping in YAML; `headrace check-config` shows where: %s" (index $own "Error")) -}}
  {{- end -}}
{{- end -}}
{{- if not $own.model_list -}}
  {{- fail "no model is configured: set configFile to a configuration with a model_list (--set-file configFile=config.yaml; `headrace init` writes one), or write it under config" -}}
{{- end -}}
{{- if hasKey $own "include" -}}
  {{- fail "the configuration has `include`, but the files are not in the pod: put all of it into one file" -}}
{{- end -}}
{{- /* Not mergeOverwrite, for which false and 0 are no values. An empty field is absent, as it is to headrace. */ -}}
{{- $pipeline := deepCopy .Values.pipelineSettings -}}
{{- range $name, $value := default dict $own.pipeline_settings -}}
  {{- if not (kindIs "invalid" $value) -}}
    {{- $_ := set $pipeline $name $value -}}
  {{- end -}}
{{- end -}}
{{- range $name := list "host" "metrics_address" -}}
  {{- if regexMatch "^(127\\.|localhost|\\[?::1\\]?(:|$))" (toString (default "" (get $pipeline $name))) -}}
    {{- fail (printf "pipeline_settings.%s is an address that only the pod itself reaches: remove it, or write 0.0.0.0" $name) -}}
  {{- end -}}
{{- end -}}
{{- range $name := list "port" "workers" "shutdown_delay_s" "graceful_timeout_s" -}}
  {{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(e\\+?[0-9]+)?$" (toString (get $pipeline $name))) -}}
    {{- fail (printf "pipeline_settings.%s must be a number: the chart derives the pod's settings from it" $name) -}}
  {{- end -}}
{{- end -}}
{{- $_ := set $own "pipeline_settings" $pipeline -}}
{{- toJson $own -}}
{{- end }}

{{/* pipeline_settings alone, as JSON. */}}
{{- define "headrace.pipelineSettings" -}}
{{- (include "headrace.config" . | fromJson).pipeline_settings | toJson -}}
{{- end }}

{{/* The seconds until SIGKILL. 20 s: what the supervisor itself adds before it kills its workers. */}}
{{- define "headrace.graceSeconds" -}}
{{- $pipeline := include "headrace.pipelineSettings" . | fromJson -}}
{{- addf (float64 $pipeline.shutdown_delay_s) (float64 $pipeline.graceful_timeout_s) 20 | ceil | int64 -}}
{{- end }}

{{/* The port of metrics_address; empty if there is none. */}}
{{- define "headrace.metricsPort" -}}
{{- $pipeline := include "headrace.pipelineSettings" . | fromJson -}}
{{- with $pipeline.metrics_address -}}
  {{- $port := regexFind ":[0-9]+$" (toString .) | trimPrefix ":" -}}
  {{- if or (not $port) (eq $port "0") -}}
    {{- fail "pipeline_settings.metrics_address must be an address and a port, such as 0.0.0.0:9400" -}}
  {{- end -}}
  {{- $port -}}
{{- end -}}
{{- end }}

{{/* What the configuration has of keys as they are, neither as os.environ/NAME nor as their hash. */}}
{{- define "headrace.clearKeys" -}}
{{- $config := include "headrace.config" . | fromJson -}}
{{- $keys := list (list "general_settings.master_key" (default dict $config.general_settings).master_key) -}}
{{- range $config.model_list -}}
  {{- $model := kindIs "map" . | ternary . dict -}}
  {{- $keys = append $keys (list (printf "a key of %v" $model.model_name) (default dict $model.litellm_params).api_key) -}}
{{- end -}}
{{- range $config.pipeline_settings.keys -}}
  {{- $own := kindIs "map" . | ternary . dict -}}
  {{- $keys = append $keys (list (printf "pipeline_settings.keys: that of %v" $own.name) $own.key) -}}
{{- end -}}
{{- $clear := list -}}
{{- range $keys -}}
  {{- if and (last .) (not (regexMatch "^(os\\.environ/|sha256:)" (toString (last .)))) -}}
    {{- $clear = append $clear (first .) -}}
  {{- end -}}
{{- end -}}
{{- $clear | uniq | toJson -}}
{{- end }}

{{/* The variables that the configuration names and that the text of headrace.env does not set, if there is no other place. */}}
{{- define "headrace.unsetNames" -}}
{{- $unset := list -}}
{{- if and .Values.keys.envFile (not .Values.extraEnv) (not .Values.extraEnvFrom) -}}
  {{- range regexFindAll "os\\.environ/[A-Za-z_][A-Za-z0-9_]*" (include "headrace.config" .) -1 | uniq -}}
    {{- $name := trimPrefix "os.environ/" . -}}
    {{- if not (regexMatch (printf "(?m)^[ \\t]*(export[ \\t]+)?%s[ \\t]*=[ \\t]*\\S" $name) $.Values.keys.envFile) -}}
      {{- $unset = append $unset $name -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- $unset | toJson -}}
{{- end }}

{{/* http, or https if headrace itself serves TLS. */}}
{{- define "headrace.scheme" -}}
{{- $pipeline := include "headrace.pipelineSettings" . | fromJson -}}
{{- empty $pipeline.tls_certfile | ternary "http" "https" -}}
{{- end }}

{{/* The ports that pods may connect to: 443, those of the configuration's addresses, and networkPolicy.egressPorts. */}}
{{- define "headrace.egressPorts" -}}
{{- $config := include "headrace.config" . | fromJson -}}
{{- $addresses := list $config.pipeline_settings.proxy $config.pipeline_settings.otlp_endpoint -}}
{{- range $config.model_list -}}
  {{- $params := default dict (get (kindIs "map" . | ternary . dict) "litellm_params") -}}
  {{- $addresses = append (append $addresses $params.api_base) $params.base_url -}}
{{- end -}}
{{- $ports := list 443 -}}
{{- range $addresses -}}
  {{- $address := toString (default "" .) -}}
  {{- if regexMatch "^https?://" $address -}}
    {{- $authority := regexFind "^https?://[^/?#]*" $address -}}
    {{- $port := regexFind ":[0-9]+$" $authority | trimPrefix ":" -}}
    {{- $ports = append $ports (int (default (hasPrefix "https:" $address | ternary "443" "80") $port)) -}}
  {{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.egressPorts -}}
  {{- $ports = append $ports (int .) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{/*
What a running headrace does not read again, as text: pods are replaced when it changes, and only then, unless nothing
is watched. tests/test_deploy/test_chart.py compares the names with pipeline/gateway/restarts.py.
*/}}
{{- define "headrace.needsRestart" -}}
{{- $config := include "headrace.config" . | fromJson -}}
{{- $pipeline := $config.pipeline_settings -}}
{{- if eq (toString $pipeline.watch_config) "true" -}}
{{- pick $pipeline "host" "port" "workers" "max_age_s" "watch_config" "graceful_timeout_s" "shutdown_delay_s" "metrics_address" "otlp_endpoint" "otlp_interval_s" "recorder_mb" "log_format" "max_connections" "keep_alive_timeout_s" "header_timeout_s" "write_timeout_s" "max_requests" "tls_certfile" "tls_keyfile" | toJson -}}
{{- else -}}
{{- toJson $config }}{{ .Values.keys.envFile -}}
{{- end -}}
{{- end }}

{{/* Fails if the values contradict each other, with a sentence that says what to set. */}}
{{- define "headrace.check" -}}
{{- $config := include "headrace.config" . | fromJson -}}
{{- $pipeline := $config.pipeline_settings -}}
{{- $general := default dict $config.general_settings -}}
{{- if and .Values.keys.envFile .Values.keys.existingSecret -}}
  {{- fail "both keys.envFile and keys.existingSecret are set: set one of them" -}}
{{- end -}}
{{- $hasVariables := or .Values.keys.envFile .Values.keys.existingSecret .Values.extraEnv .Values.extraEnvFrom -}}
{{- $names := regexFindAll "os\\.environ/[A-Za-z_][A-Za-z0-9_]*" (toJson $config) -1 | uniq -}}
{{- if and $names (not $hasVariables) -}}
  {{- fail (printf "the configuration names %s, but there are no variables: set keys.envFile (--set-file keys.envFile=headrace.env) or keys.existingSecret" (first $names)) -}}
{{- end -}}
{{- if not (or $hasVariables $general.master_key $pipeline.keys $pipeline.allow_anonymous) -}}
  {{- fail "there is no master key: write HEADRACE_MASTER_KEY=... (`headrace new-key` makes one) into headrace.env, and set keys.envFile (--set-file keys.envFile=headrace.env) or keys.existingSecret" -}}
{{- end -}}
{{- $notReady := mul .Values.readinessProbe.periodSeconds .Values.readinessProbe.failureThreshold -}}
{{- if ge (float64 $notReady) (float64 $pipeline.shutdown_delay_s) -}}
  {{- fail (printf "readinessProbe.periodSeconds x failureThreshold is %d s, and pipeline_settings.shutdown_delay_s is %v s: it must be longer, or a pod that ends gets requests that it refuses" $notReady $pipeline.shutdown_delay_s) -}}
{{- end -}}
{{- if and .Values.persistence.enabled (or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1)) -}}
  {{- fail "persistence is for one pod: set replicaCount to 1 and autoscaling.enabled to false" -}}
{{- end -}}
{{- if and (or .Values.autoscaling.enabled .Values.serviceMonitor.enabled) (not (include "headrace.metricsPort" .)) -}}
  {{- fail "autoscaling and serviceMonitor need metrics: set pipelineSettings.metrics_address" -}}
{{- end -}}
{{- if eq (include "headrace.metricsPort" .) (toString (int $pipeline.port)) -}}
  {{- fail (printf "pipeline_settings.metrics_address has the port of the service, %d: write another one" (int $pipeline.port)) -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
  {{- fail (printf "autoscaling.minReplicas is %d, and maxReplicas is %d: it must not be less" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
  {{- fail "ingress.enabled is true, but ingress.host is not set" -}}
{{- end -}}
{{- end }}
