{{/* Pod spec of the Job and the CronJob that make certificates. */}}
{{- define "netmail.certificatesPod" -}}
serviceAccountName: {{ .Release.Name }}-certificates
automountServiceAccountToken: true
restartPolicy: OnFailure
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: certificates
    image: {{ include "netmail.image" (dict "Values" .Values.cli "Chart" .Chart) | quote }}
    imagePullPolicy: {{ .Values.cli.image.pullPolicy }}
    args:
      - certificates
      - issue
      - --namespace
      - {{ .Release.Namespace }}
      - --prefix
      - {{ .Release.Name }}
      - --installation
      - {{ .Values.installation }}
      - --host-name
      - {{ include "netmail.hostName" . }}
      {{- if not .Values.certificates.listeners }}
      - --no-listeners
      {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop:
          - ALL
    resources:
      requests:
        cpu: 50m
        memory: 64Mi
    volumeMounts:
      - name: tmp
        mountPath: /tmp
volumes:
  - name: tmp
    emptyDir: {}
{{- end -}}
