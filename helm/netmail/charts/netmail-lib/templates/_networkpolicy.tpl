{{/*
Nobody may talk to an agent, and it to nobody, but as is said here: (dict "root" $ "component" "smtp"
"public" (list 2525) "grpc" 7710 "callers" (list "smtp" "deliver") "calls" (list (dict "component"
"nmap" "port" 7710)) "world" (list 25) "store" .Values.postgresql). "world": ports anywhere; "store": ports of
the store's peers, "objects" likewise.
*/}}
{{- define "netmail.networkPolicy" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- if $policy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "netmail.name" . }}
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "netmail.selectorLabels" . | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  ingress:
    {{- with .public }}
    - ports:
        {{- range . }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with $policy.clients }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- with .grpc }}
    - ports:
        - port: {{ . }}
          protocol: TCP
        {{- with include "netmail.mesh.tunnelPorts" $ | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      from:
        {{- range $.callers }}
        - podSelector:
            matchLabels:
              {{- include "netmail.selectorLabels" (dict "root" $.root "component" .) | nindent 14 }}
        {{- end }}
        {{- with $policy.grpcClients }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- end }}
    - ports:
        - port: http
          protocol: TCP
      {{- with $policy.monitoring }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- with $policy.extraIngress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  egress:
    - ports:
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
    {{- range .calls }}
    - ports:
        - port: {{ .port }}
          protocol: TCP
        {{- with include "netmail.mesh.tunnelPorts" $ | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      to:
        - podSelector:
            matchLabels:
              {{- include "netmail.selectorLabels" (dict "root" $.root "component" .component) | nindent 14 }}
    {{- end }}
    {{- range list .store .objects }}
    {{- with . }}
    - ports:
        {{- range .ports }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
      {{- with .peers }}
      to:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
    {{- end }}
    {{- with .world }}
    - ports:
        {{- range . }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
    {{- end }}
    {{- with include "netmail.mesh.egress" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $policy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}
