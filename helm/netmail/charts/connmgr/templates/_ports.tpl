{{/* Ports of the container. */}}
{{- define "connmgr.ports" -}}
- name: grpc
  port: 7700
{{- range .Values.frontEnds.ports }}
- name: {{ .name }}
  port: {{ .containerPort }}
  protocol: {{ .protocol | default "TCP" }}
{{- end }}
{{- end -}}
