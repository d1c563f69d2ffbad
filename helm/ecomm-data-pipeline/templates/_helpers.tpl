{{/* The labels of every object. */}}
{{- define "ecomm.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The image of a stage: `dict "root" $ "stage" NAME`. */}}
{{- define "ecomm.image" -}}
{{- $image := .root.Values.image -}}
{{- with index .root.Values.images .stage -}}
{{- . -}}
{{- else -}}
{{- with $image.registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}/{{ .stage }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{/* What each step talks to, by the words of `ecomm check`; a test holds it to what the stage reads of settings.py. */}}
{{- define "ecomm.needs" -}}
dates: [s3]
finish: [s3]
gate: []
extractor: [postgres, s3]
dlt-trigger: [s3, databricks]
dbt-runner: [s3, databricks{{ if .Values.settings.ECOMM_DBT_CLOUD_JOB_ID }}, dbt-cloud{{ end }}]
tableau-refresher: [s3, databricks, tableau]
kpi-gate: [s3, databricks]
reconciler: [postgres, s3, databricks]
exporter: [s3]
{{- end }}

{{/* The steps that have something to tell of data: those that read or write more than the ledger, and what ends them. */}}
{{- define "ecomm.tellers" -}}
{{- range $step, $services := include "ecomm.needs" . | fromYaml }}
{{- if or (has "postgres" $services) (has "databricks" $services) (eq $step "finish") }}
- {{ $step }}
{{- end }}
{{- end }}
{{- end }}

{{/* The port of a URL or of a host. */}}
{{- define "ecomm.port" -}}
{{- $url := toString . -}}
{{- with regexFind ":[0-9]+(/|$)" $url -}}
{{- trimAll ":/" . -}}
{{- else -}}
{{- ternary 80 443 (hasPrefix "http://" $url) -}}
{{- end -}}
{{- end }}

{{/* When a night begins and when dbt may, as settings: what watches the nights has to know. */}}
{{- define "ecomm.nightly" -}}
{{- $schedule := .Values.schedule -}}
{{- if ne $schedule.notBefore "now" }}
ECOMM_NIGHTLY_GATE: {{ $schedule.notBefore | quote }}
{{- end }}
{{- $start := regexFindAll "^[0-9]{1,2} [0-9]{1,2} " (first $schedule.cron) 1 }}
{{- if and $start (has $schedule.timezone (list "" .Values.timezone)) }}
{{- $fields := splitList " " (first $start) }}
ECOMM_NIGHTLY_STARTS: {{ printf "%02d:%02d" (atoi (index $fields 1)) (atoi (index $fields 0)) | quote }}
{{- end }}
{{- end }}

{{/* A value of the ConfigMap: numbers as they are written, not as 9e+06. */}}
{{- define "ecomm.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{/* What the Pod Security standard `restricted` asks of every container. */}}
{{- define "ecomm.restricted" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}
