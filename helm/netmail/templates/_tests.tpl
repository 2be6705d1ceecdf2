{{/*
"yes" where a pod of the cluster can use the listeners as clients do, and gRPC as `netmail` does: in a mesh with a sidecar,
by the service account of the CLI. A pod for xDS would never end.
*/}}
{{- define "netmail.tests.reachable" -}}
{{- $services := or .Values.sharedService.enabled (and .Values.smtp.service.enabled (index .Values "pop-imap").service.enabled) -}}
{{- $mesh := include "netmail.mesh.sidecars" (dict "root" .) -}}
{{- if and .Values.tests.enabled (ne .Values.global.grpc.loadBalancing "xds") (or .Values.cli.enabled (not $mesh)) (or .Values.tests.host (and $services (not .Values.proxyProtocol.enabled))) -}}
yes
{{- end -}}
{{- end -}}

{{/* HOST:PORT of a listener: (dict "root" $ "component" "smtp" "ports" list "name" "submission"). */}}
{{- define "netmail.tests.door" -}}
{{- $own := ternary "mail" .component .root.Values.sharedService.enabled -}}
{{- $host := .root.Values.tests.host | default (printf "%s-%s" .root.Release.Name $own) -}}
{{- range .ports }}{{- if eq .name $.name }}{{ printf "%s:%d" $host (int .port) }}{{- end }}{{- end -}}
{{- end -}}
