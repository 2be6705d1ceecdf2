{{/* Combinations of mesh and gRPC that would be open or could not work, refused in words. */}}
{{- define "netmail.mesh.checks" -}}
{{- $mode := .Values.global.mesh.mode -}}
{{- $grpc := .Values.global.grpc -}}
{{- if eq $grpc.security "mesh" }}
{{- if not (has $mode (list "istio" "linkerd")) }}
{{- fail (printf "global.grpc.security mesh needs global.mesh.mode istio or linkerd, whose proxies tell an agent who calls; %s has none that do" $mode) }}
{{- end }}
{{- range $name := list "connmgr" "nmap" "smtp" "pop-imap" }}
{{- if (index $.Values $name).serviceAccount.name }}
{{- fail (printf "global.grpc.security mesh knows roles by service accounts, one for each: leave %s.serviceAccount.name empty" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq $grpc.loadBalancing "mesh") (ne $grpc.security "mesh") }}
{{- fail "global.grpc.loadBalancing mesh needs global.grpc.security mesh: the mesh sees no calls inside our own TLS and would leave each client with one pod" }}
{{- end }}
{{- if eq $grpc.loadBalancing "xds" }}
{{- if ne $mode "istio" }}
{{- fail "global.grpc.loadBalancing xds needs global.mesh.mode istio, whose control plane answers it" }}
{{- end }}
{{- if ne $grpc.security "mtls" }}
{{- fail "global.grpc.loadBalancing xds needs global.grpc.security mtls: its pods have no sidecar, and gRPC's server for Python's asyncio knows no xDS" }}
{{- end }}
{{- end }}
{{- end -}}
