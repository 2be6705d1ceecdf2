{{/* "yes" where a pod of the cluster can use the listeners as clients do, and gRPC without a mesh. */}}
{{- define "netmail.tests.reachable" -}}
{{- $services := or .Values.sharedService.enabled (and .Values.smtp.service.enabled (index .Values "pop-imap").service.enabled) -}}
{{- if and .Values.tests.enabled (eq .Values.global.mesh.mode "none") (or .Values.tests.host (and $services (not .Values.proxyProtocol.enabled))) -}}
yes
{{- end -}}
{{- end -}}

{{/* HOST:PORT of a listener: (dict "root" $ "component" "smtp" "ports" list "name" "submission"). */}}
{{- define "netmail.tests.door" -}}
{{- $own := ternary "mail" .component .root.Values.sharedService.enabled -}}
{{- $host := .root.Values.tests.host | default (printf "%s-%s" .root.Release.Name $own) -}}
{{- range .ports }}{{- if eq .name $.name }}{{ printf "%s:%d" $host (int .port) }}{{- end }}{{- end -}}
{{- end -}}
