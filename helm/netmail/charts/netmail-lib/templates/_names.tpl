{{/* Names and labels. Each takes (dict "root" $ "component" "smtp"). */}}

{{- define "netmail.name" -}}
{{- printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "netmail.selectorLabels" -}}
app.kubernetes.io/name: netmail
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "netmail.labels" -}}
{{ include "netmail.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: netmail
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "netmail.configMap" -}}
{{- .Values.config.existingConfigMap | default (printf "%s-config" .Release.Name) -}}
{{- end -}}

{{/* Secret with ca.pem, ROLE.pem and ROLE.key: (dict "root" $ "role" "smtp"). */}}
{{- define "netmail.grpcSecret" -}}
{{- .root.Values.certificates.existingSecret | default (printf "%s-grpc-%s" .root.Release.Name .role) -}}
{{- end -}}

{{- define "netmail.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" .Release.Name) -}}
{{- end -}}

{{- define "netmail.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "netmail.serviceAccountName" -}}
{{- .root.Values.serviceAccount.name | default (include "netmail.name" .) -}}
{{- end -}}
