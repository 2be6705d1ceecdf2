{{/*
The public Service of listeners: (dict "root" $ "component" "smtp" "ports" list). "service": what is said of it, when it
is not the chart's own; "selector": labels of its pods, when they are not the component's.
*/}}
{{- define "netmail.publicService" -}}
{{- $service := .service | default .root.Values.service -}}
{{- if $service.enabled }}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
  {{- $mode := .root.Values.global.mesh.mode }}
  {{- $annotations := dict }}
  {{- if eq $mode "linkerd" }}
  {{- $ports := list }}
  {{- range .ports }}{{- $ports = append $ports .port }}{{- end }}
  {{- $annotations = dict "config.linkerd.io/opaque-ports" (join "," $ports) }}
  {{- end }}
  {{- with merge (dict) $service.annotations $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $service.type }}
  {{- if ne $service.type "ClusterIP" }}
  externalTrafficPolicy: {{ $service.externalTrafficPolicy }}
  {{- end }}
  {{- with $service.loadBalancerIP }}
  loadBalancerIP: {{ . }}
  {{- end }}
  {{- with $service.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with $service.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  selector:
    {{- if .selector }}
    {{- toYaml .selector | nindent 4 }}
    {{- else }}
    {{- include "netmail.selectorLabels" . | nindent 4 }}
    {{- end }}
  ports:
    {{- range .ports }}
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .name }}
      {{- if ne $mode "none" }}
      appProtocol: tcp
      {{- end }}
      protocol: {{ .protocol | default "TCP" }}
      {{- if and .nodePort (ne $service.type "ClusterIP") }}
      nodePort: {{ .nodePort }}
      {{- end }}
    {{- end }}
{{- end }}
{{- end -}}
