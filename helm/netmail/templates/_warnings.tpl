{{/* What is allowed, and unsafe. */}}
{{- define "netmail.warnings" -}}
{{- $pop := index .Values "pop-imap" -}}
{{- $found := list -}}
{{- if .Values.initialUsers }}
{{- $found = append $found "initialUsers has passwords in plain text in a ConfigMap: it is for trying NetMail out." }}
{{- end }}
{{- if .Values.grantingNetworks }}
{{- $found = append $found (printf "grantingNetworks: a login from %s lets its address relay. If a node, a proxy or a NAT has an address there, all who come through it may relay after one login." (join ", " .Values.grantingNetworks)) }}
{{- end }}
{{- range $name := list "connmgr" "nmap" "smtp" "pop-imap" }}
{{- if not (index $.Values $name).networkPolicy.enabled }}
{{- $found = append $found (printf "%s.networkPolicy.enabled is false: every pod of the cluster reaches these pods." $name) }}
{{- end }}
{{- end }}
{{- range $name := list "connmgr" "nmap" }}
{{- with (index $.Values $name).persistence }}
{{- if not .enabled }}
{{- if eq $name "nmap" }}
{{- $found = append $found "nmap.persistence.enabled is false: unless mail is on PostgreSQL, it is gone with the pod." }}
{{- else }}
{{- $found = append $found "connmgr.persistence.enabled is false: unless the table is in Valkey or Redis, revocations are forgotten with the pod." }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $port := concat .Values.smtp.serve.ports $pop.ports }}
{{- if $port.hostPort }}
{{- $found = append $found (printf "%s has port %v of the nodes: Pod Security lets a namespace have such ports only if it is privileged, which its other pods are then too." $port.name $port.hostPort) }}
{{- end }}
{{- end }}
{{- if and .Values.sharedService.enabled (eq .Values.sharedService.externalTrafficPolicy "Local") (not $pop.affinity) (not .Values.smtp.affinity) }}
{{- $found = append $found "sharedService with externalTrafficPolicy Local, and no affinity: a node that has pods of one agent only is sent connections for the other too, and drops them." }}
{{- end }}
{{- if and (eq .Values.certificates.mode "hook") .Values.certificates.listeners (not .Values.smtp.tls.existingSecret) }}
{{- $found = append $found (printf "The listeners' certificate is of a CA that mail programs do not know: put one of yours into the Secret %s-tls and say certificates.listeners=false." .Release.Name) }}
{{- end }}
{{- if contains "plaintext_auth" (toJson (dict "server" .Values.messagingServer "config" .Values.config)) }}
{{- $found = append $found "plaintext_auth: passwords may travel unencrypted." }}
{{- end }}
{{- with .Values.connectionManager.legacy_udp }}
{{- if .plain }}
{{- $found = append $found "legacy_udp.plain: UDP 689 without a credential believes whoever sends from allowed_sources, and addresses of datagrams are easily forged." }}
{{- end }}
{{- end }}
{{- $measured := list (list "smtp.serve" .Values.smtp.serve "smtp") (list "smtp.deliver" .Values.smtp.deliver "nmap") (list "pop-imap" $pop "pop-imap") }}
{{- range $measured }}
{{- if and (eq (index . 1).autoscaling.mode "keda") (not (index $.Values (index . 2)).serviceMonitor.enabled) }}
{{- $found = append $found (printf "%s is scaled by a series of the %s agent, and %s.serviceMonitor.enabled is false: unless Prometheus finds its pods otherwise, nothing is scaled." (index . 0) (index . 2) (index . 2)) }}
{{- end }}
{{- end }}
{{- range $found }}

WARNING: {{ . }}
{{- end }}
{{- end -}}
