{{/* What the Connection Manager's part of the configuration says of its store; takes the chart's values. */}}
{{- define "connmgr.storeConfiguration" -}}
{{- with .valkey }}
{{- if .enabled -}}
store: valkey
valkey:
  mode: {{ .mode }}
  addresses: {{ toJson .addresses }}
  service_name: {{ .serviceName | quote }}
  {{- with .username }}
  username: {{ . | quote }}
  {{- end }}
  {{- if .existingSecret }}
  password_file: /etc/netmail/valkey/{{ .passwordKey }}
  {{- with .sentinelPasswordKey }}
  sentinel_password_file: /etc/netmail/valkey/{{ . }}
  {{- end }}
  {{- end }}
  tls: {{ .tls.enabled }}
  {{- if .tls.existingSecret }}
  ca_file: /etc/netmail/valkey-tls/ca.crt
  {{- if .tls.clientCertificate }}
  certificate: /etc/netmail/valkey-tls/tls.crt
  key: /etc/netmail/valkey-tls/tls.key
  {{- end }}
  {{- end }}
{{- else -}}
store: memory
{{- end }}
{{- end }}
{{- end -}}
