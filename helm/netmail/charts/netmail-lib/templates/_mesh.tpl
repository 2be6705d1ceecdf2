{{/*
Service meshes. global.mesh.mode says which the pods are in, global.grpc.security who authenticates the agents to each
other: they themselves (mtls), inside a mesh too, or the mesh.
*/}}

{{/* "true" where pods have a proxy of their own beside them that carries their gRPC. */}}
{{- define "netmail.mesh.sidecars" -}}
{{- $global := .root.Values.global -}}
{{- if and (has $global.mesh.mode (list "istio" "linkerd")) (ne $global.grpc.loadBalancing "xds") }}true{{ end -}}
{{- end -}}

{{/*
"true" where gRPC is opaque to the mesh, which sees our own TLS. Not with xds: no proxy stands between, and Istio's control
plane makes routes for ports of gRPC only.
*/}}
{{- define "netmail.mesh.opaque" -}}
{{- $grpc := .root.Values.global.grpc -}}
{{- if and (ne .root.Values.global.mesh.mode "none") (eq $grpc.security "mtls") (ne $grpc.loadBalancing "xds") }}true{{ end -}}
{{- end -}}

{{- define "netmail.mesh.controlPlane" -}}
{{- $mesh := .root.Values.global.mesh -}}
{{- $mesh.controlPlaneNamespace | default (ternary "linkerd" "istio-system" (eq $mesh.mode "linkerd")) -}}
{{- end -}}

{{/* What the mesh calls a component's pods: (dict "root" $ "component" "smtp"). */}}
{{- define "netmail.mesh.identity" -}}
{{- $root := .root -}}
{{- $account := printf "%s-%s" $root.Release.Name .component -}}
{{- if eq $root.Values.global.mesh.mode "linkerd" -}}
{{- printf "%s.%s.serviceaccount.identity.%s.%s" $account $root.Release.Namespace (include "netmail.mesh.controlPlane" .) $root.Values.global.mesh.trustDomain -}}
{{- else -}}
{{- printf "spiffe://%s/ns/%s/sa/%s" $root.Values.global.mesh.trustDomain $root.Release.Namespace $account -}}
{{- end -}}
{{- end -}}

{{/* Labels of a pod: (dict "root" $ "tls" true). "tls": it has public listeners, whose clients' addresses count. */}}
{{- define "netmail.mesh.podLabels" -}}
{{- $mode := .root.Values.global.mesh.mode -}}
{{- if eq $mode "istio" }}
sidecar.istio.io/inject: "true"
{{- else if eq $mode "istio-ambient" }}
istio.io/dataplane-mode: {{ ternary "none" "ambient" (.tls | default false) }}
{{- end }}
{{- end -}}

{{/*
Annotations of a pod: (dict "root" $ "ports" list "world" (list 25)). "ports": of its containers; all but
that of gRPC stay out of the proxy, so that clients' addresses survive, and so that metrics and "world", what it sends
mail to, need no mesh. The proxy starts before the agent and ends after it.
*/}}
{{- define "netmail.mesh.podAnnotations" -}}
{{- $global := .root.Values.global -}}
{{- $outside := list 7780 -}}
{{- $grpc := list -}}
{{- range .ports }}
{{- if eq .name "grpc" }}{{- $grpc = append $grpc .port }}{{- else }}{{- $outside = append $outside .port }}{{- end }}
{{- end }}
{{- if and (eq $global.mesh.mode "istio") (eq $global.grpc.loadBalancing "xds") }}
inject.istio.io/templates: grpc-agent
proxy.istio.io/config: '{"holdApplicationUntilProxyStarts": true}'
{{- else if eq $global.mesh.mode "istio" }}
sidecar.istio.io/nativeSidecar: "true"
traffic.sidecar.istio.io/excludeInboundPorts: {{ join "," $outside | quote }}
{{- with .world }}
traffic.sidecar.istio.io/excludeOutboundPorts: {{ join "," . | quote }}
{{- end }}
{{- else if eq $global.mesh.mode "linkerd" }}
linkerd.io/inject: enabled
config.linkerd.io/proxy-enable-native-sidecar: "true"
config.linkerd.io/skip-inbound-ports: {{ join "," $outside | quote }}
{{- with .world }}
config.linkerd.io/skip-outbound-ports: {{ join "," . | quote }}
{{- end }}
{{- if and $grpc (include "netmail.mesh.opaque" .) }}
config.linkerd.io/opaque-ports: {{ join "," $grpc | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Labels of a pod that needs no mesh, such as a Job's. */}}
{{- define "netmail.mesh.outsideLabels" -}}
{{- $mode := .root.Values.global.mesh.mode -}}
{{- if eq $mode "istio" }}
sidecar.istio.io/inject: "false"
{{- else if eq $mode "istio-ambient" }}
istio.io/dataplane-mode: none
{{- end }}
{{- end -}}

{{/* Annotations of such a pod. */}}
{{- define "netmail.mesh.outsideAnnotations" -}}
{{- if eq .root.Values.global.mesh.mode "linkerd" }}
linkerd.io/inject: disabled
{{- end }}
{{- end -}}

{{/* Ports that a mesh's proxies carry gRPC on between pods, besides its own. */}}
{{- define "netmail.mesh.tunnelPorts" -}}
{{- $mode := .root.Values.global.mesh.mode -}}
{{- if eq $mode "linkerd" }}
- port: 4143
  protocol: TCP
{{- else if eq $mode "istio-ambient" }}
- port: 15008
  protocol: TCP
{{- end }}
{{- end -}}

{{/* Egress rule by which a pod's proxy reaches its control plane. */}}
{{- define "netmail.mesh.egress" -}}
{{- $mode := .root.Values.global.mesh.mode -}}
{{- if has $mode (list "istio" "linkerd") }}
- ports:
    {{- range ternary (list 15012) (list 8080 8086 8090) (eq $mode "istio") }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ include "netmail.mesh.controlPlane" . }}
{{- end }}
{{- end -}}
