{{/*
A Deployment; takes what "netmail.podTemplate" takes, "values" with replicas and autoscaling. With a port of the node's
own a new pod finds no place beside the old one there, so the old one goes first.
*/}}
{{- define "netmail.deployment" -}}
{{- $own := false -}}
{{- range .ports }}{{- if .hostPort }}{{- $own = true }}{{- end }}{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  {{- if eq .values.autoscaling.mode "none" }}
  replicas: {{ .values.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: {{ ternary 1 0 $own }}
      maxSurge: {{ ternary 0 1 $own }}
  selector:
    matchLabels:
      {{- include "netmail.selectorLabels" . | nindent 6 }}
  template:
    {{- include "netmail.podTemplate" . | nindent 4 }}
{{- end -}}
