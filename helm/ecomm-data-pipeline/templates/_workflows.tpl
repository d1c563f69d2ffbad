{{/*
A rendered workflow with what the values say: `dict "root" $ "workflow" (… | fromYaml)`.

The YAML is data here and never goes through `tpl`: Argo's own {{ "{{…}}" }} are to stay as they are. sprig's `set`
changes a dict in place, so that all of this is one long statement; its results go into `$_`.
*/}}
{{- define "ecomm.workflow" -}}
{{- $root := .root -}}
{{- $workflow := .workflow -}}
{{- $labels := merge (default dict $workflow.metadata.labels) (include "ecomm.labels" $root | fromYaml) -}}
{{- $_ := set $workflow.metadata "labels" $labels -}}
{{- if eq $workflow.kind "CronWorkflow" -}}
{{- include "ecomm.workflow.cron" (dict "values" $root.Values "spec" $workflow.spec) -}}
{{- else -}}
{{- include "ecomm.workflow.spec" (dict "values" $root.Values "spec" $workflow.spec) -}}
{{- range $workflow.spec.templates -}}
{{- if .container -}}
{{- include "ecomm.workflow.step" (dict "root" $root "step" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $workflow -}}
{{- end }}

{{- define "ecomm.workflow.cron" -}}
{{- $schedule := .values.schedule -}}
{{- $_ := set .spec "schedules" $schedule.cron -}}
{{- $_ := set .spec "timezone" (default .values.timezone $schedule.timezone) -}}
{{- range list "suspend" "startingDeadlineSeconds" "successfulJobsHistoryLimit" "failedJobsHistoryLimit" -}}
{{- $_ := set $.spec . (get $schedule .) -}}
{{- end -}}
{{- end }}

{{- define "ecomm.workflow.spec" -}}
{{- $values := .values -}}
{{- $spec := .spec -}}
{{- range $spec.arguments.parameters -}}
{{- if eq .name "tables" -}}{{- $_ := set . "value" (toJson $values.tables) -}}{{- end -}}
{{- if eq .name "not-before" -}}{{- $_ := set . "value" $values.schedule.notBefore -}}{{- end -}}
{{- if eq .name "bounds" -}}{{- $_ := set . "value" (include "ecomm.workflow.bounds" $values.kpiGate.bounds) -}}{{- end -}}
{{- end -}}
{{- /* The stage's account has no token in the pod; only Argo's executor has one, of an account of its own. */ -}}
{{- $_ := set $spec "serviceAccountName" $values.serviceAccount.name -}}
{{- $_ := set $spec "automountServiceAccountToken" false -}}
{{- $_ := set $spec "executor" (dict "serviceAccountName" $values.executor.name) -}}
{{- if not $spec.podSpecPatch -}}{{- $_ := set $spec "podSpecPatch" (include "ecomm.workflow.executor" .) -}}{{- end -}}
{{- if not $values.podDisruptionBudget.enabled -}}{{- $_ := unset $spec "podDisruptionBudget" -}}{{- end -}}
{{- $_ := set $spec "ttlStrategy" $values.cleanup -}}
{{- with $values.image.pullSecrets -}}{{- $_ := set $spec "imagePullSecrets" . -}}{{- end -}}
{{- with $values.priorityClassName -}}{{- $_ := set $spec "podPriorityClassName" . -}}{{- end -}}
{{- range list "nodeSelector" "tolerations" "affinity" -}}
{{- $name := . -}}
{{- with get $values $name -}}{{- $_ := set $spec $name . -}}{{- end -}}
{{- end -}}
{{- $pod := default dict $spec.podMetadata -}}
{{- with $values.podLabels -}}{{- $_ := set $pod "labels" (merge dict . (default dict $pod.labels)) -}}{{- end -}}
{{- with $values.podAnnotations -}}{{- $_ := set $pod "annotations" (merge dict . (default dict $pod.annotations)) -}}{{- end -}}
{{- if $pod -}}{{- $_ := set $spec "podMetadata" $pod -}}{{- end -}}
{{- end }}

{{/* Bounds of KPIs as ECOMM_KPI_GATE_BOUNDS has them, in the order of their names. */}}
{{- define "ecomm.workflow.bounds" -}}
{{- $bounds := list -}}
{{- range $kpi, $bound := . -}}{{- $bounds = append $bounds (printf "%s=%s" $kpi $bound) -}}{{- end -}}
{{- join "," $bounds -}}
{{- end }}

{{/* Argo gives its own containers beside the stage no security context; a restricted namespace refuses such a pod. */}}
{{- define "ecomm.workflow.executor" -}}
{{- $context := include "ecomm.restricted" . | fromYaml -}}
{{- $_ := set $context "runAsUser" 8737 -}}
{{- $init := dict "name" "init" "securityContext" $context -}}
{{- $wait := dict "name" "wait" "securityContext" $context -}}
{{- toJson (dict "initContainers" (list $init) "containers" (list $wait)) -}}
{{- end }}

{{- define "ecomm.workflow.step" -}}
{{- $values := .root.Values -}}
{{- $step := .step -}}
{{- $container := $step.container -}}
{{- $stage := regexReplaceAll "^.*/([^/:@]+)[^/]*$" $container.image "${1}" -}}
{{- $_ := set $container "image" (include "ecomm.image" (dict "root" .root "stage" $stage)) -}}
{{- $_ := set $container "imagePullPolicy" $values.image.pullPolicy -}}
{{- range $container.envFrom -}}
{{- with .secretRef -}}{{- $_ := set . "name" $values.secret.existingSecret -}}{{- end -}}
{{- end -}}
{{- if and $values.openLineage.existingSecret (has $step.name (include "ecomm.tellers" .root | fromYamlArray)) -}}
{{- $key := dict "name" $values.openLineage.existingSecret "key" "OPENLINEAGE_API_KEY" -}}
{{- $variable := dict "name" "OPENLINEAGE_API_KEY" "valueFrom" (dict "secretKeyRef" $key) -}}
{{- $_ := set $container "env" (append (default list $container.env) $variable) -}}
{{- end -}}
{{- with $step.retryStrategy -}}
{{- $_ := set . "limit" $values.retry.limit -}}
{{- $_ := set . "backoff" (merge dict $values.retry.backoff (default dict .backoff)) -}}
{{- end -}}
{{- with get $values.stages $step.name -}}
{{- with .resources -}}{{- $_ := set $container "resources" (merge dict . $container.resources) -}}{{- end -}}
{{- with .activeDeadlineSeconds -}}{{- $_ := set $step "activeDeadlineSeconds" . -}}{{- end -}}
{{- end -}}
{{- end }}
