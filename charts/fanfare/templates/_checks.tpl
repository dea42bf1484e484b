{{/* What a schema cannot say: values that make no sense together. Each problem names its remedy. */}}
{{- define "fanfare.check" -}}
{{- $problems := list -}}
{{- $elsewhere := dict
  "server.bind" "bindAddress and service.port say where clients come"
  "server.plain_bind" "the chart has one port for clients; use tls.existingSecret, or TLS of the ingress"
  "metrics.bind" "bindAddress and metrics.service.port say where metrics are"
  "admin.bind" "set admin.enabled, and admin.service to reach it from other Pods"
  "admin.token" "it is a secret: use admin.token or admin.existingSecret"
  "redis.url" "it is a secret: use redis.url or redis.existingSecret"
  "redis.sentinels" "it may hold passwords: use redis.sentinels or redis.existingSecretSentinelsKey"
  "redis.tls_ca_file" "use redis.tls.existingSecret"
  "redis.tls_cert_file" "use redis.tls.existingSecret"
  "redis.tls_key_file" "use redis.tls.existingSecret"
  "store.url" "it is a secret: use store.url or store.existingSecret"
  "store.apps_file" "use apps.list or apps.existingSecret"
  "tls.certificate" "use tls.existingSecret"
  "tls.key" "use tls.existingSecret" -}}
{{- range $setting, $remedy := $elsewhere -}}
{{- $at := splitList "." $setting -}}
{{- if hasKey (get $.Values.config (first $at) | default dict) (last $at) -}}
{{- $problems = append $problems (printf "config.%s is not set here: %s" $setting $remedy) -}}
{{- end -}}
{{- end -}}
{{- if not (include "fanfare.hasRedis" .) -}}
{{- if gt (int (include "fanfare.replicasMin" .)) 1 -}}
{{- $problems = append $problems "more than one container takes Redis, or clients of different containers would not hear each other: set redis.url or redis.existingSecret, or one replica" -}}
{{- else if .Values.autoscaling.enabled -}}
{{- $problems = append $problems "autoscaling takes Redis: set redis.url or redis.existingSecret" -}}
{{- end -}}
{{- if or .Values.redis.sentinels .Values.redis.tls.existingSecret .Values.redis.passwordSecret -}}
{{- $problems = append $problems "redis.sentinels, redis.tls and redis.passwordSecret do nothing without redis.url or redis.existingSecret" -}}
{{- end -}}
{{- else if dig "webhooks" "state_file" "" .Values.config -}}
{{- $problems = append $problems "config.webhooks.state_file is for a single node: with Redis leave it out, Redis keeps what was not delivered" -}}
{{- end -}}
{{- range $name := list "redis" "store" -}}
{{- $block := get $.Values $name -}}
{{- $mark := printf "$(%s_URL_PASSWORD)" (upper $name) -}}
{{- if and $block.url $block.existingSecret -}}
{{- $problems = append $problems (printf "%s.url and %s.existingSecret both say the URL: set one of them" $name $name) -}}
{{- end -}}
{{- if ne (not (empty $block.passwordSecret)) (contains $mark $block.url) -}}
{{- $problems = append $problems (printf "%s.passwordSecret and %s in %s.url belong together: set both or none" $name $mark $name) -}}
{{- end -}}
{{- end -}}
{{- with .Values.redis -}}
{{- if ne (empty .tls.certificateKey) (empty .tls.privateKeyKey) -}}
{{- $problems = append $problems "redis.tls.certificateKey and redis.tls.privateKeyKey belong together: set both or none" -}}
{{- end -}}
{{- if and .existingSecretSentinelsKey (not .existingSecret) -}}
{{- $problems = append $problems "redis.existingSecretSentinelsKey is a key of redis.existingSecret: set that too, or redis.sentinels" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.apps.list .Values.apps.existingSecret -}}
{{- $problems = append $problems "apps.list and apps.existingSecret both say the apps: set one of them" -}}
{{- end -}}
{{- if and .Values.admin.token .Values.admin.existingSecret -}}
{{- $problems = append $problems "admin.token and admin.existingSecret both say the token: set one of them" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- $problems = append $problems "metrics.serviceMonitor and metrics.podMonitor would read everything twice: enable one of them" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- $problems = append $problems "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\nThese values cannot be used:\n- %s\n" (join "\n- " $problems)) -}}
{{- end -}}
{{- end -}}
