{{- define "netmail.hostName" -}}
{{- .Values.hostName | default (printf "mail.%s" .Values.domain) -}}
{{- end -}}

{{/* What every public listener has: (dict "root" $ "port" 2525). */}}
{{- define "netmail.listener" -}}
listen: ["0.0.0.0:{{ .port }}"]
{{- if .root.Values.proxyProtocol.enabled }}
proxy_protocol: true
proxy_trusted_networks: {{ toJson .root.Values.proxyProtocol.trustedNetworks }}
{{- end }}
{{- end -}}

{{- define "netmail.connectionManager" -}}
name: main
listen: ["0.0.0.0:7700"]
address: {{ include "netmail.grpcAddress" (dict "root" $ "component" "connmgr" "port" 7700) }}
http: {listen: "0.0.0.0:7780"}
private_ranges_shared: true
granting_networks: {{ toJson .Values.grantingNetworks }}
learn_cluster_networks: {{ .Values.connmgr.clusterNetworks.enabled }}
{{ include "connmgr.storeConfiguration" .Values.connmgr }}
{{- end -}}

{{- define "netmail.messagingServer" -}}
name: mail
host_name: {{ include "netmail.hostName" . }}
domains: {{ concat (list .Values.domain) .Values.domains | toJson }}
contexts:
  - name: {{ .Values.context }}
    initial_users: {{ toJson .Values.initialUsers }}
connection_manager: main
ube_relaying:
  smtp_after_pop: {{ .Values.smtpAfterPop }}
tls:
  certificate: /etc/netmail/tls/tls.crt
  key: /etc/netmail/tls/tls.key
nmap:
  listen: ["0.0.0.0:7710"]
  address: {{ include "netmail.grpcAddress" (dict "root" $ "component" "nmap" "port" 7710) }}
  http: {listen: "0.0.0.0:7780"}
  {{- include "nmap.storeConfiguration" .Values.nmap | nindent 2 }}
smtp:
  workers: 1
  http: {listen: "0.0.0.0:7780"}
  listeners:
    - name: mx
      {{- include "netmail.listener" (dict "root" . "port" 2525) | nindent 6 }}
    - name: submission
      role: submission
      {{- include "netmail.listener" (dict "root" . "port" 2587) | nindent 6 }}
    - name: submissions
      role: submission
      tls: implicit
      {{- include "netmail.listener" (dict "root" . "port" 2465) | nindent 6 }}
deliver:
  http: {listen: "0.0.0.0:7780"}
pop_imap:
  workers: 1
  http: {listen: "0.0.0.0:7780"}
  listeners:
    - name: pop3
      protocol: pop3
      {{- include "netmail.listener" (dict "root" . "port" 2110) | nindent 6 }}
    - name: pop3s
      protocol: pop3
      tls: implicit
      {{- include "netmail.listener" (dict "root" . "port" 2995) | nindent 6 }}
    - name: imap
      protocol: imap
      {{- include "netmail.listener" (dict "root" . "port" 2143) | nindent 6 }}
    - name: imaps
      protocol: imap
      tls: implicit
      {{- include "netmail.listener" (dict "root" . "port" 2993) | nindent 6 }}
{{- end -}}

{{/* Where an agent's gRPC is found: (dict "root" $ "component" "nmap" "port" 7710). */}}
{{- define "netmail.grpcAddress" -}}
{{- if eq .root.Values.global.grpc.loadBalancing "xds" -}}
xds:///{{ .root.Release.Name }}-{{ .component }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.global.mesh.clusterDomain }}:{{ .port }}
{{- else -}}
{{ .root.Release.Name }}-{{ .component }}:{{ .port }}
{{- end -}}
{{- end -}}

{{- define "netmail.grpc" -}}
{{- if eq .Values.global.grpc.security "mtls" -}}
certificates: /etc/netmail/grpc
{{- else -}}
security: mesh
mesh:
  proxy: {{ .Values.global.mesh.mode }}
  identities:
    {{- range $role, $component := dict "pop_imap" "pop-imap" "smtp" "smtp" "deliver" "deliver" "nmap" "nmap" "connmgr" "connmgr" "admin" "cli" }}
    {{ $role }}: [{{ include "netmail.mesh.identity" (dict "root" $ "component" $component) | quote }}]
    {{- end }}
{{- end -}}
{{- end -}}

{{- define "netmail.configuration" -}}
{{- $manager := mergeOverwrite (include "netmail.connectionManager" . | fromYaml) .Values.connectionManager -}}
{{- $server := mergeOverwrite (include "netmail.messagingServer" . | fromYaml) .Values.messagingServer -}}
{{- $whole := dict "installation" .Values.installation "log" (dict "format" "json") "grpc" (include "netmail.grpc" . | fromYaml) "connection_managers" (list $manager) "messaging_servers" (list $server) -}}
{{- mergeOverwrite $whole .Values.config | toYaml -}}
{{- end -}}
