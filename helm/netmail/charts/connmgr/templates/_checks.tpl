{{/* What must not be installed, said in words. */}}
{{- define "connmgr.checks" -}}
{{- if not .Values.valkey.enabled }}
{{- if or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.mode "none") }}
{{- fail "connmgr: more than one pod needs Valkey or Redis, since a table in memory belongs to one: switch valkey.enabled on" }}
{{- end }}
{{- else if not .Values.valkey.addresses }}
{{- fail "connmgr: valkey.enabled needs valkey.addresses" }}
{{- end }}
{{- if and .Values.frontEnds.gateway.enabled (not .Values.frontEnds.gateway.keepsSourceAddress) }}
{{- fail "frontEnds.gateway.enabled: a Gateway hands on from its own address, and a front end knows by the address whom it may answer (UDP has no PROXY header): give it frontEnds.service, or say keepsSourceAddress if this Gateway does" }}
{{- end }}
{{- end -}}
