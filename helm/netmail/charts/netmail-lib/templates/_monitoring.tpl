{{/*
The chart's alerts, a file each: (dict "root" $ "component" "smtp"). Each is about its own namespace: another installation
neither fires them nor keeps them quiet.
*/}}
{{- define "netmail.prometheusRule" -}}
{{- if .root.Values.prometheusRule.enabled }}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
    {{- with .root.Values.prometheusRule.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  groups:
    - name: {{ include "netmail.name" . }}
      rules:
        {{- $own := printf "namespace=\"%s\"" .root.Release.Namespace }}
        {{- range $path, $_ := .root.Files.Glob "files/alerts/*.yaml" }}
        {{- $rule := $.root.Files.Get $path | fromYaml }}
        {{- $expression := regexReplaceAll "\\b(netmail_[a-z_]+)\\b" $rule.expr (printf "${1}{%s}" $own) }}
        {{- $_ := set $rule "expr" ($expression | replace (printf "{%s}{" $own) (printf "{%s," $own)) }}
        {{- $_ := set $rule.labels "namespace" $.root.Release.Namespace }}
        - {{ toYaml $rule | nindent 10 | trim }}
        {{- end }}
{{- end }}
{{- end -}}

{{/* The chart's dashboard, as Grafana's sidecar looks for them. */}}
{{- define "netmail.dashboard" -}}
{{- if .root.Values.dashboard.enabled }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "netmail.name" . }}-dashboard
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
    {{- toYaml .root.Values.dashboard.labels | nindent 4 }}
data:
  netmail-{{ .component }}.json: |
    {{- .root.Files.Get "files/dashboard.json" | nindent 4 }}
{{- end }}
{{- end -}}
