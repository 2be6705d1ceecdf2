{{/* The chart's alerts, a file each: (dict "root" $ "component" "smtp"). */}}
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
        {{- range $path, $_ := .root.Files.Glob "files/alerts/*.yaml" }}
        - {{ $.root.Files.Get $path | trim | nindent 10 | trim }}
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
