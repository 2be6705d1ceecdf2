{{/*
What a mesh enforces for an agent: (dict "root" $ "component" "nmap" "grpc" 7710). Without "grpc" nobody calls it.
Every call is encrypted and authenticated by the mesh; who may call is said by service account, and by method where the
mesh sees methods.
*/}}
{{- define "netmail.mesh.policies" }}
{{- $mode := .root.Values.global.mesh.mode -}}
{{- if and (eq $mode "istio") (include "netmail.mesh.sidecars" .) }}
{{ include "netmail.mesh.istio" . }}
{{- else if and (eq $mode "linkerd") .grpc }}
{{ include "netmail.mesh.linkerd" . }}
{{- else if and (eq $mode "istio-ambient") .grpc }}
{{ include "netmail.mesh.peerAuthentication" (dict "context" . "mode" "PERMISSIVE") }}
{{- end }}
{{- end -}}

{{- define "netmail.mesh.peerAuthentication" -}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: {{ include "netmail.name" .context }}
  labels:
    {{- include "netmail.labels" .context | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "netmail.selectorLabels" .context | nindent 6 }}
  mtls:
    mode: {{ .mode }}
{{- end -}}

{{- define "netmail.mesh.istio" -}}
{{- include "netmail.mesh.peerAuthentication" (dict "context" . "mode" "STRICT") }}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "netmail.selectorLabels" . | nindent 6 }}
  action: ALLOW
  {{- if and .grpc (include "netmail.mesh.opaque" .) }}
  rules:
    - from:
        - source:
            principals:
              {{- range include "netmail.mesh.callers" . | fromYamlArray }}
              - {{ include "netmail.mesh.identity" (dict "root" $.root "component" .) | trimPrefix "spiffe://" }}
              {{- end }}
      to:
        - operation:
            ports:
              - {{ $.grpc | quote }}
  {{- else if .grpc }}
  rules:
    {{- range include (printf "netmail.methods.%s" .component) . | fromYamlArray }}
    - from:
        - source:
            principals:
              {{- range .callers }}
              - {{ include "netmail.mesh.identity" (dict "root" $.root "component" .) | trimPrefix "spiffe://" }}
              {{- end }}
      to:
        - operation:
            ports:
              - {{ $.grpc | quote }}
            paths:
              {{- toYaml .methods | nindent 14 }}
    {{- end }}
  {{- end }}
{{- if .grpc }}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  host: {{ include "netmail.name" . }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.global.mesh.clusterDomain }}
  trafficPolicy:
    tls:
      mode: ISTIO_MUTUAL
      subjectAltNames:
        - {{ include "netmail.mesh.identity" . }}
{{- end }}
{{- end -}}

{{/* Components that may call anything of an agent's but its health. */}}
{{- define "netmail.mesh.callers" -}}
{{- $callers := list }}
{{- range include (printf "netmail.methods.%s" .component) . | fromYamlArray }}
{{- if not (hasPrefix "/grpc.health." (first .methods)) }}{{- $callers = concat $callers .callers }}{{- end }}
{{- end }}
{{- uniq $callers | sortAlpha | toYaml }}
{{- end -}}

{{- define "netmail.mesh.linkerd" -}}
---
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "netmail.selectorLabels" . | nindent 6 }}
  port: {{ .grpc }}
  proxyProtocol: {{ ternary "opaque" "gRPC" (eq (include "netmail.mesh.opaque" .) "true") }}
  accessPolicy: deny
{{- if include "netmail.mesh.opaque" . }}
{{- $callers := include "netmail.mesh.callers" . | fromYamlArray }}
{{- include "netmail.mesh.linkerdLeave" (dict "context" . "name" (include "netmail.name" .) "callers" $callers "kind" "Server") }}
{{- else }}
{{- range include (printf "netmail.methods.%s" .component) . | fromYamlArray }}
{{- $name := printf "%s-from-%s" (include "netmail.name" $) (join "-" .callers) }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  name: {{ $name }}
  labels:
    {{- include "netmail.labels" $ | nindent 4 }}
spec:
  parentRefs:
    - group: policy.linkerd.io
      kind: Server
      name: {{ include "netmail.name" $ }}
  rules:
    {{- range chunk 8 .methods }}
    - matches:
        {{- range . }}
        {{- $parts := splitList "/" . }}
        - method:
            service: {{ index $parts 1 }}
            method: {{ index $parts 2 }}
        {{- end }}
    {{- end }}
{{- include "netmail.mesh.linkerdLeave" (dict "context" $ "name" $name "callers" .callers "kind" "GRPCRoute") }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Lets the callers through to a Server or a route of that NAME. */}}
{{- define "netmail.mesh.linkerdLeave" }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata:
  name: {{ .name }}
  labels:
    {{- include "netmail.labels" .context | nindent 4 }}
spec:
  identities:
    {{- range .callers }}
    - {{ include "netmail.mesh.identity" (dict "root" $.context.root "component" .) }}
    {{- end }}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata:
  name: {{ .name }}
  labels:
    {{- include "netmail.labels" .context | nindent 4 }}
spec:
  targetRef:
    group: {{ ternary "policy.linkerd.io" "gateway.networking.k8s.io" (eq .kind "Server") }}
    kind: {{ .kind }}
    name: {{ .name }}
  requiredAuthenticationRefs:
    - group: policy.linkerd.io
      kind: MeshTLSAuthentication
      name: {{ .name }}
{{- end -}}

{{/*
Clients of a public Service that are in the mesh, its gateways too, speak to the listeners as they are: (dict "root" $
"component" "smtp"). Not where the Gateway's own rule says it.
*/}}
{{- define "netmail.mesh.publicService" }}
{{- $values := .root.Values -}}
{{- $byGateway := and $values.gateway.enabled (eq $values.gateway.proxyProtocolBy "istio") -}}
{{- if and (eq $values.global.mesh.mode "istio") $values.service.enabled (not $byGateway) }}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  host: {{ include "netmail.name" . }}.{{ .root.Release.Namespace }}.svc.{{ $values.global.mesh.clusterDomain }}
  trafficPolicy:
    tls:
      mode: DISABLE
{{- end }}
{{- end -}}
