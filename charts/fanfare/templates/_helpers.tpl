{{/* ---- names ------------------------------------------------------------------------------------------------- */}}

{{- define "fanfare.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for every suffix that is put to it. */}}
{{- define "fanfare.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $release .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "fanfare.serviceAccountName" -}}
{{- ternary (include "fanfare.fullname" .) "default" .Values.serviceAccount.create | default .Values.serviceAccount.name -}}
{{- end -}}

{{/* What Services, Deployment and policies select the server's Pods by; the Pod of `helm test` is none of them. */}}
{{- define "fanfare.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Labels of every object. */}}
{{- define "fanfare.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
app.kubernetes.io/name: {{ include "fanfare.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object. Takes a list: the root, what to put to the name, more labels, annotations. */}}
{{- define "fanfare.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "fanfare.fullname" $root }}{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "fanfare.labels" $root | nindent 2 }}
  {{- with index . 2 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with index . 3 }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fanfare.image" -}}
{{- $image := .Values.image -}}
{{- $version := ternary (printf "@%s" $image.digest) (printf ":%s" (default .Chart.AppVersion $image.tag)) (not (empty $image.digest)) -}}
{{- printf "%s/%s%s" $image.registry $image.repository $version | trimPrefix "/" -}}
{{- end -}}

{{/* ---- what is there: "true" or nothing ------------------------------------------------------------------------ */}}

{{- define "fanfare.hasRedis" -}}
{{- if or .Values.redis.url .Values.redis.existingSecret }}true{{ end -}}
{{- end -}}

{{- define "fanfare.hasStore" -}}
{{- if or .Values.store.url .Values.store.existingSecret }}true{{ end -}}
{{- end -}}

{{- define "fanfare.hasAppsFile" -}}
{{- if or .Values.apps.list .Values.apps.existingSecret (not (include "fanfare.hasStore" .)) }}true{{ end -}}
{{- end -}}

{{- define "fanfare.replicasMin" -}}
{{- ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled -}}
{{- end -}}

{{/* Kubernetes sleeps by itself from 1.30 on, where the feature is on unless it was switched off. */}}
{{- define "fanfare.hasSleep" -}}
{{- if and (gt (int .Values.shutdown.delaySeconds) 0) (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}true{{ end -}}
{{- end -}}

{{/* ---- settings ------------------------------------------------------------------------------------------------ */}}

{{/* A value as TOML. JSON's texts, numbers and lists are TOML's; numbers of values are floats, which TOML tells apart
     from whole numbers and JSON does not write so. */}}
{{- define "fanfare.toml" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s = %s" (toRawJson $key) (include "fanfare.toml" $value)) }}{{ end -}}
{ {{- join ", " $pairs -}} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . }}{{ $items = append $items (include "fanfare.toml" .) }}{{ end -}}
[{{ join ", " $items }}]
{{- else -}}
{{- toRawJson . -}}
{{- end -}}
{{- end -}}

{{- define "fanfare.appsFile" -}}
# Made by the chart.
{{- range . }}

[[apps]]
{{- include "fanfare.tomlBlock" . }}
{{- end }}
{{ end -}}

{{/* The settings of a block, one in a line. Those that were set to null are left out. */}}
{{- define "fanfare.tomlBlock" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "fanfare.toml" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What `config` says, and what the chart adds to it. YAML: read with fromYaml. */}}
{{- define "fanfare.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $own := dict -}}
{{- if and (gt (int .Values.shutdown.delaySeconds) 0) (not (include "fanfare.hasSleep" .)) -}}
{{- $delay := dig "drain" "delay_s" 0 $config -}}
{{- $_ := set $own "drain" (dict "delay_s" (add $delay .Values.shutdown.delaySeconds)) -}}
{{- end -}}
{{- if include "fanfare.hasAppsFile" . -}}
{{- $_ := set $own "store" (dict "apps_file" "/etc/fanfare/apps.toml") -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
{{- $_ := set $own "tls" (dict "certificate" "/etc/fanfare-tls/tls.crt" "key" "/etc/fanfare-tls/tls.key") -}}
{{- end -}}
{{- with .Values.redis.tls -}}
{{- if .existingSecret -}}
{{- $files := dict -}}
{{- if .caKey }}{{ $_ := set $files "tls_ca_file" "/etc/fanfare-redis/ca.crt" }}{{ end -}}
{{- if .certificateKey }}{{ $_ := set $files "tls_cert_file" "/etc/fanfare-redis/tls.crt" }}{{ end -}}
{{- if .privateKeyKey }}{{ $_ := set $files "tls_key_file" "/etc/fanfare-redis/tls.key" }}{{ end -}}
{{- $_ := set $own "redis" $files -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite $config $own | toYaml -}}
{{- end -}}

{{/* Seconds from the order to end until the kubelet kills: everything that may take time, see `[drain]`. */}}
{{- define "fanfare.gracePeriod" -}}
{{- $drain := dig "drain" (dict) .Values.config -}}
{{- $closing := add (dig "delay_s" 0 $drain) (dig "spread_s" 10 $drain) (dig "server" "shutdown_timeout_s" 5 .Values.config) -}}
{{- add .Values.shutdown.delaySeconds $closing .Values.shutdown.marginSeconds -}}
{{- end -}}

{{/* ---- secrets ------------------------------------------------------------------------------------------------- */}}

{{/* A random text that upgrades keep: what the Secret has already. It is made once in a rendering, since several
     templates ask. Takes a list: the root, the end of the Secret's name, its key, the length. */}}
{{- define "fanfare.generated" -}}
{{- $root := index . 0 -}}
{{- $key := index . 2 -}}
{{- if not (hasKey $root.Values "generated") }}{{ $_ := set $root.Values "generated" dict }}{{ end -}}
{{- if not (hasKey $root.Values.generated $key) -}}
{{- $name := printf "%s%s" (include "fanfare.fullname" $root) (index . 1) -}}
{{- $secret := lookup "v1" "Secret" $root.Release.Namespace $name | default dict -}}
{{- $old := dig "data" $key "" $secret | b64dec -}}
{{- $_ := set $root.Values.generated $key (default (randAlphaNum (int (index . 3)) | lower) $old) -}}
{{- end -}}
{{- get $root.Values.generated $key -}}
{{- end -}}

{{/* The apps of the chart's Secret. YAML: read with fromYamlArray. */}}
{{- define "fanfare.apps" -}}
{{- if .Values.apps.list -}}
{{- toYaml .Values.apps.list -}}
{{- else -}}
{{- $key := include "fanfare.generated" (list . "-chart-apps" "app-key" 20) -}}
{{- $secret := include "fanfare.generated" (list . "-chart-apps" "app-secret" 32) -}}
{{- list (dict "id" "1" "keys" (list (dict "key" $key "secret" $secret))) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* What the chart's Secret for the environment holds. YAML: read with fromYaml. */}}
{{- define "fanfare.secretSettings" -}}
{{- $settings := dict -}}
{{- range $name := list "redis" "store" -}}
{{- $block := get $.Values $name -}}
{{- if and $block.url (not $block.passwordSecret) }}{{ $_ := set $settings (printf "%s-url" $name) $block.url }}{{ end -}}
{{- end -}}
{{- with .Values.redis.sentinels }}{{ $_ := set $settings "redis-sentinels" . }}{{ end -}}
{{- if and .Values.admin.enabled (not .Values.admin.existingSecret) -}}
{{- $token := .Values.admin.token | default (include "fanfare.generated" (list . "-chart-env" "admin-token" 32)) -}}
{{- $_ := set $settings "admin-token" $token -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "fanfare.envFromSecret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{/* The URL of Redis or of the database. Takes a list: the root, "redis" or "store". */}}
{{- define "fanfare.urlEnv" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $block := get $root.Values $name -}}
{{- $variable := printf "FANFARE_%s_URL" (upper $name) -}}
{{- if $block.passwordSecret }}
{{ include "fanfare.envFromSecret" (list (printf "%s_URL_PASSWORD" (upper $name)) $block.passwordSecret $block.passwordSecretKey) }}
- name: {{ $variable }}
  value: {{ $block.url | quote }}
{{- else if $block.existingSecret }}
{{ include "fanfare.envFromSecret" (list $variable $block.existingSecret $block.existingSecretKey) }}
{{- else if $block.url }}
{{ include "fanfare.envFromSecret" (list $variable (printf "%s-chart-env" (include "fanfare.fullname" $root)) (printf "%s-url" $name)) }}
{{- end }}
{{- end -}}

{{/* ---- the container, which the server and `helm test` share --------------------------------------------------- */}}

{{/* Addresses are here and not in the file, since those that the image sets are stronger than a file. */}}
{{- define "fanfare.env" -}}
{{- $settings := printf "%s-chart-env" (include "fanfare.fullname" .) -}}
- name: FANFARE_CONFIG
  value: /etc/fanfare/fanfare.toml
- name: FANFARE_SERVER_BIND
  value: {{ printf "%s:6001" .Values.bindAddress | quote }}
- name: FANFARE_METRICS_BIND
  value: {{ printf "%s:9601" .Values.bindAddress | quote }}
{{- if .Values.admin.enabled }}
- name: FANFARE_ADMIN_BIND
  value: {{ printf "%s:9602" (ternary .Values.bindAddress "127.0.0.1" .Values.admin.service) | quote }}
{{ include "fanfare.envFromSecret" (list "FANFARE_ADMIN_TOKEN" (default $settings .Values.admin.existingSecret) (ternary .Values.admin.existingSecretKey "admin-token" (not (empty .Values.admin.existingSecret)))) }}
{{- end }}
{{- include "fanfare.urlEnv" (list . "redis") }}
{{- if .Values.redis.sentinels }}
{{ include "fanfare.envFromSecret" (list "FANFARE_REDIS_SENTINELS" $settings "redis-sentinels") }}
{{- else if .Values.redis.existingSecretSentinelsKey }}
{{ include "fanfare.envFromSecret" (list "FANFARE_REDIS_SENTINELS" .Values.redis.existingSecret .Values.redis.existingSecretSentinelsKey) }}
{{- end }}
{{- include "fanfare.urlEnv" (list . "store") }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Whole directories, since a file that is mounted by itself never changes. */}}
{{- define "fanfare.volumes" -}}
- name: config
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "fanfare.fullname" . }}
          items:
            - key: fanfare.toml
              path: fanfare.toml
      {{- if include "fanfare.hasAppsFile" . }}
      - secret:
          name: {{ default (printf "%s-chart-apps" (include "fanfare.fullname" .)) .Values.apps.existingSecret }}
          items:
            - key: {{ ternary .Values.apps.existingSecretKey "apps.toml" (not (empty .Values.apps.existingSecret)) }}
              path: apps.toml
      {{- end }}
{{- with .Values.tls }}
{{- if .existingSecret }}
- name: tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .certificateKey }}
        path: tls.crt
      - key: {{ .privateKeyKey }}
        path: tls.key
{{- end }}
{{- end }}
{{- with .Values.redis.tls }}
{{- if .existingSecret }}
- name: redis-tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      {{- range $path, $key := dict "ca.crt" .caKey "tls.crt" .certificateKey "tls.key" .privateKeyKey }}
      {{- if $key }}
      - key: {{ $key }}
        path: {{ $path }}
      {{- end }}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "fanfare.volumeMounts" -}}
- name: config
  mountPath: /etc/fanfare
  readOnly: true
{{- if .Values.tls.existingSecret }}
- name: tls
  mountPath: /etc/fanfare-tls
  readOnly: true
{{- end }}
{{- if .Values.redis.tls.existingSecret }}
- name: redis-tls
  mountPath: /etc/fanfare-redis
  readOnly: true
{{- end }}
{{- end -}}

{{/* What is the same for every Pod. */}}
{{- define "fanfare.podSpec" -}}
serviceAccountName: {{ include "fanfare.serviceAccountName" . }}
automountServiceAccountToken: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "dnsConfig" "hostAliases" }}
{{- with get $.Values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "fanfare.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- with omit . "path" }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* ---- the way in ---------------------------------------------------------------------------------------------- */}}

{{/* The URL by which clients come, or nothing if nobody has said. */}}
{{- define "fanfare.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- .Values.publicUrl | trimSuffix "/" -}}
{{- else if .Values.ingress.enabled -}}
{{- printf "%s://%s%s" (ternary "https" "http" (not (empty .Values.ingress.tls))) (first .Values.ingress.hosts) (trimSuffix "/" .Values.ingress.path) -}}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames -}}
{{- printf "https://%s%s" (first .Values.httpRoute.hostnames) (trimSuffix "/" .Values.httpRoute.path) -}}
{{- end -}}
{{- end -}}

{{/* ---- `helm test` --------------------------------------------------------------------------------------------- */}}

{{/* There must be an app to test with. */}}
{{- define "fanfare.hasTest" -}}
{{- if and .Values.tests.enabled (or .Values.tests.existingSecret (include "fanfare.hasAppsFile" .)) }}true{{ end -}}
{{- end -}}

{{- define "fanfare.testLabels" -}}
app.kubernetes.io/name: {{ include "fanfare.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{/* A certificate is for the public name, not for that of the Service. */}}
{{- define "fanfare.testUrl" -}}
{{- $scheme := ternary "https" "http" (not (empty .Values.tls.existingSecret)) -}}
{{- $service := printf "%s://%s:%v" $scheme (include "fanfare.fullname" .) .Values.service.port -}}
{{- $public := ternary (include "fanfare.publicUrl" .) "" (eq $scheme "https") -}}
{{- coalesce .Values.tests.url $public $service -}}
{{- end -}}
