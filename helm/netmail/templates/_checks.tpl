{{/* What must not be installed, said in words. */}}
{{- define "netmail.checks" -}}
{{- if not .Values.domain }}
{{- fail "domain must be set: helm install ... --set domain=example.org" }}
{{- end }}
{{- range $name := list "smtp" "pop-imap" }}
{{- $chart := index $.Values $name }}
{{- if and $.Values.smtpAfterPop (not $.Values.proxyProtocol.enabled) }}
{{- if eq $chart.service.type "ClusterIP" }}
{{- fail (printf "%s.service.type ClusterIP hides the clients' addresses behind whatever stands before it, and a POP3 or IMAP login would open the relay to all of them: switch proxyProtocol on (and let that proxy send it), or smtpAfterPop off" $name) }}
{{- end }}
{{- if ne $chart.service.externalTrafficPolicy "Local" }}
{{- fail (printf "%s.service.externalTrafficPolicy %s replaces the clients' addresses by a node's, and a POP3 or IMAP login would open the relay to all of them: say Local, or switch proxyProtocol on, or smtpAfterPop off" $name $chart.service.externalTrafficPolicy) }}
{{- end }}
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
{{- if and .Values.proxyProtocol.enabled (not .Values.proxyProtocol.trustedNetworks) }}
{{- fail "proxyProtocol.enabled needs proxyProtocol.trustedNetworks: nobody could connect" }}
{{- end }}
{{- end -}}
