{{/* What the NMAP agent's part of the configuration says of its store; takes the chart's values. */}}
{{- define "nmap.storeConfiguration" -}}
{{- $objects := .objectStore -}}
{{- with .postgresql -}}
store:
  {{- if .existingSecret }}
  url_file: /etc/netmail/postgresql/{{ .urlKey }}
  pooled: {{ .pooled }}
  {{- with .listenUrlKey }}
  listen_url_file: /etc/netmail/postgresql/{{ . }}
  {{- end }}
  {{- with $objects }}
  {{- if .url }}
  objects:
    url: {{ .url }}
    region: {{ .region }}
    virtual_hosted: {{ .virtualHosted }}
    {{- with .endpoint }}
    endpoint: {{ . }}
    {{- end }}
    {{- if .existingSecret }}
    access_key_file: /etc/netmail/objects/{{ .accessKeyKey }}
    secret_key_file: /etc/netmail/objects/{{ .secretKeyKey }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- else }} {}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Ports and peers of the object store; nothing without one. */}}
{{- define "nmap.objects" -}}
{{- with .Values.objectStore }}
{{- if .url }}
ports: {{ toJson .ports }}
peers: {{ toJson .peers }}
{{- end }}
{{- end }}
{{- end -}}
