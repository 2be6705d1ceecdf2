{{/* What the pods of backups and of a restore have in common; takes the context of a component. */}}
{{- define "nmap.backup.podMetadata" -}}
labels:
  {{- include "netmail.labels" . | nindent 2 }}
  {{- with include "netmail.mesh.podLabels" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with include "netmail.mesh.podAnnotations" . | trim }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nmap.backup.podSpec" -}}
automountServiceAccountToken: false
restartPolicy: OnFailure
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nmap.backup.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}

{{- define "nmap.backup.claim" -}}
{{- .Values.backup.persistence.existingClaim | default (include "netmail.name" (dict "root" $ "component" "nmap-backups")) -}}
{{- end -}}

{{/* Whether there are pods that write or read backups. */}}
{{- define "nmap.backup.used" -}}
{{- if or .Values.backup.enabled .Values.restore.file }}yes{{ end }}
{{- end -}}
