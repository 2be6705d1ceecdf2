{{/*
Routes of the Gateway API to a Service, one for each of its ports: (dict "root" $ "component" "smtp" "service" NAME
"ports" list). A port's "protocol" is TCP unless it says UDP. "gateway": what is said of it, when it is not the chart's own.
*/}}
{{- define "netmail.routes" -}}
{{- $gateway := .gateway | default .root.Values.gateway -}}
{{- if $gateway.enabled }}
{{- range .ports }}
{{- $kind := printf "%sRoute" (.protocol | default "TCP") }}
{{- $stable := $.root.Capabilities.APIVersions.Has (printf "gateway.networking.k8s.io/v1/%s" $kind) }}
---
apiVersion: gateway.networking.k8s.io/{{ ternary "v1" "v1alpha2" $stable }}
kind: {{ $kind }}
metadata:
  name: {{ include "netmail.name" $ }}-{{ .name }}
  labels:
    {{- include "netmail.labels" $ | nindent 4 }}
spec:
  parentRefs:
    {{- $port := . }}
    {{- range $gateway.parentRefs | default (list (dict "name" $.root.Release.Name)) }}
    - {{- merge (dict) . (dict "sectionName" $port.name) | toYaml | nindent 6 }}
    {{- end }}
  rules:
    - backendRefs:
        - name: {{ $.service }}
          port: {{ .port }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What makes the Gateway's proxies send the PROXY protocol on these routes; takes what "netmail.routes" takes. */}}
{{- define "netmail.routesWithProxyProtocol" -}}
{{- $gateway := .root.Values.gateway -}}
{{- if and $gateway.enabled (eq $gateway.proxyProtocolBy "envoy-gateway") }}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  targetRefs:
    {{- range .ports }}
    - group: gateway.networking.k8s.io
      kind: TCPRoute
      name: {{ include "netmail.name" $ }}-{{ .name }}
    {{- end }}
  proxyProtocol:
    version: V2
{{- else if and $gateway.enabled (eq $gateway.proxyProtocolBy "istio") }}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  host: {{ .service }}.{{ .root.Release.Namespace }}.svc.cluster.local
  trafficPolicy:
    proxyProtocol:
      version: V2
    tls:
      mode: DISABLE
{{- end }}
{{- end -}}
