{{/* A HorizontalPodAutoscaler or a KEDA ScaledObject: (dict "root" $ "component" "smtp" "kind" "Deployment" "values" .Values.serve "query" "..."). */}}
{{- define "netmail.autoscaling" -}}
{{- $scaling := .values.autoscaling -}}
{{- if eq $scaling.mode "hpa" }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ .kind }}
    name: {{ include "netmail.name" . }}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $scaling.cpuUtilization }}
{{- else if eq $scaling.mode "keda" }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ .kind }}
    name: {{ include "netmail.name" . }}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {{ $scaling.prometheus | quote }}
        query: {{ .query | quote }}
        threshold: {{ $scaling.threshold | quote }}
{{- end }}
{{- end -}}
