{{/* What the NMAP agent's part of the configuration says of its store; takes the chart's values. */}}
{{- define "nmap.storeConfiguration" -}}
{{- with .postgresql -}}
store:
  {{- if .existingSecret }}
  url_file: /etc/netmail/postgresql/{{ .urlKey }}
  pooled: {{ .pooled }}
  {{- with .listenUrlKey }}
  listen_url_file: /etc/netmail/postgresql/{{ . }}
  {{- end }}
  {{- else }} {}
  {{- end }}
{{- end }}
{{- end -}}
