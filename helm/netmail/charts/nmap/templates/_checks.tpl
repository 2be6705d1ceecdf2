{{/* What must not be installed, said in words. */}}
{{- define "nmap.checks" -}}
{{- if not .Values.postgresql.existingSecret }}
{{- if or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.mode "none") }}
{{- fail "nmap: more than one pod needs PostgreSQL, since SQLite belongs to one: name its Secret in postgresql.existingSecret" }}
{{- end }}
{{- end }}
{{- if and .Values.restore.file (not .Values.postgresql.existingSecret) (not .Values.persistence.enabled) }}
{{- fail "nmap: restore.file needs a store that outlives its pods: persistence.enabled or postgresql.existingSecret" }}
{{- end }}
{{- if and .Values.objectStore.url (not .Values.postgresql.existingSecret) }}
{{- fail "nmap: objectStore needs PostgreSQL: name its Secret in postgresql.existingSecret" }}
{{- end }}
{{- if and .Values.postgresql.listenUrlKey (not .Values.postgresql.pooled) }}
{{- fail "nmap: postgresql.listenUrlKey is for postgresql.pooled" }}
{{- end }}
{{- end -}}
