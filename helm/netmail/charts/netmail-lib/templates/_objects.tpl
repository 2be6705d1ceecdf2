{{/* Objects that every agent has. Each takes (dict "root" $ "component" "smtp" ...). */}}

{{- define "netmail.serviceAccount" -}}
{{- if .root.Values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "netmail.serviceAccountName" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
  {{- with .root.Values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- end -}}

{{/* "values" of the workload: replicas, podDisruptionBudget. */}}
{{- define "netmail.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "netmail.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/*
The Service of an agent's gRPC. Headless: clients see each pod and share their calls among them; with
global.grpc.loadBalancing mesh the mesh's proxies do, and it has an address.
*/}}
{{- define "netmail.headlessService" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
  {{- if and (eq .root.Values.global.mesh.mode "linkerd") (include "netmail.mesh.opaque" .) }}
  annotations:
    config.linkerd.io/opaque-ports: {{ .port | quote }}
  {{- end }}
spec:
  {{- if ne .root.Values.global.grpc.loadBalancing "mesh" }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "netmail.selectorLabels" . | nindent 4 }}
  ports:
    {{- $opaque := include "netmail.mesh.opaque" . }}
    - name: {{ ternary "tcp-grpc" "grpc" (eq $opaque "true") }}
      appProtocol: {{ ternary "tcp" "grpc" (eq $opaque "true") }}
      port: {{ .port }}
      targetPort: grpc
      protocol: TCP
{{- end -}}

{{- define "netmail.serviceMonitor" -}}
{{- with .root.Values.serviceMonitor }}
{{- if .enabled }}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "netmail.name" $ }}
  labels:
    {{- include "netmail.labels" $ | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "netmail.selectorLabels" $ | nindent 6 }}
  podMetricsEndpoints:
    - port: http
      path: /metrics
      interval: {{ .interval }}
{{- end }}
{{- end }}
{{- end -}}
