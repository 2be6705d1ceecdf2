{{/* A Service that would hide the clients' addresses: (dict "what" "smtp.service" "service" VALUES). */}}
{{- define "netmail.checkService" -}}
{{- if .service.enabled }}
{{- if eq .service.type "ClusterIP" }}
{{- fail (printf "%s.type ClusterIP hides the clients' addresses behind whatever stands before it, and a POP3 or IMAP login would open the relay to all of them: switch proxyProtocol on (and let that proxy send it), or smtpAfterPop off" .what) }}
{{- end }}
{{- if ne .service.externalTrafficPolicy "Local" }}
{{- fail (printf "%s.externalTrafficPolicy %s replaces the clients' addresses by a node's, and a POP3 or IMAP login would open the relay to all of them: say Local, or switch proxyProtocol on, or smtpAfterPop off" .what .service.externalTrafficPolicy) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What must not be installed, said in words. */}}
{{- define "netmail.checks" -}}
{{- if not .Values.domain }}
{{- fail "domain must be set: helm install ... --set domain=example.org" }}
{{- end }}
{{- range $name := list "smtp" "pop-imap" }}
{{- $chart := index $.Values $name }}
{{- if and $.Values.smtpAfterPop (not $.Values.proxyProtocol.enabled) }}
{{- if $chart.gateway.enabled }}
{{- fail (printf "%s.gateway.enabled hides the clients' addresses behind the Gateway's, and a POP3 or IMAP login would open the relay to all of them: switch proxyProtocol on (and let the Gateway send it: %s.gateway.proxyProtocolBy), or smtpAfterPop off" $name $name) }}
{{- end }}
{{- include "netmail.checkService" (dict "what" (printf "%s.service" $name) "service" $chart.service) }}
{{- end }}
{{- if $.Values.proxyProtocol.enabled }}
{{- range $.Values.proxyProtocol.trustedNetworks }}
{{- $private := or (hasPrefix "10." .) (hasPrefix "192.168." .) (regexMatch "^172\\.(1[6-9]|2[0-9]|3[01])\\." .) (regexMatch "^(0\\.0\\.0\\.0|::)/" .) (regexMatch "^[fF][cCdD]" .) }}
{{- if and $private (not (and $chart.networkPolicy.enabled $chart.networkPolicy.clients)) }}
{{- fail (printf "proxyProtocol.trustedNetworks %s may cover pods, any of which could then claim to be any client: name the proxy in %s.networkPolicy.clients, so that nobody else reaches the listeners" . $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.smtpAfterPop (not .Values.proxyProtocol.enabled) }}
{{- include "netmail.checkService" (dict "what" "sharedService" "service" .Values.sharedService) }}
{{- end }}
{{- if and .Values.gateway.create (not .Values.gateway.className) }}
{{- fail "gateway.create needs gateway.className" }}
{{- end }}
{{- if and .Values.gateway.create (not (or .Values.smtp.gateway.enabled (index .Values "pop-imap").gateway.enabled .Values.connmgr.frontEnds.gateway.enabled)) }}
{{- fail "gateway.create needs smtp.gateway.enabled, pop-imap.gateway.enabled or connmgr.frontEnds.gateway.enabled: it would have no listener" }}
{{- end }}
{{- if and .Values.proxyProtocol.enabled (not .Values.proxyProtocol.trustedNetworks) }}
{{- fail "proxyProtocol.enabled needs proxyProtocol.trustedNetworks: nobody could connect" }}
{{- end }}
{{- end -}}
