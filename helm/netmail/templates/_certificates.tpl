{{/* Pod spec of what makes or removes certificates: (dict "root" $ "component" "certificates" "command" "issue"). */}}
{{- define "netmail.certificatesPod" -}}
{{- $command := .command -}}
{{- $account := include "netmail.name" . -}}
{{- with .root -}}
serviceAccountName: {{ $account }}
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
      - {{ $command }}
      - --namespace
      - {{ .Release.Namespace }}
      - --prefix
      - {{ .Release.Name }}
      {{- if eq $command "issue" }}
      - --installation
      - {{ .Values.installation }}
      - --host-name
      - {{ include "netmail.hostName" . }}
      {{- if not .Values.certificates.listeners }}
      - --no-listeners
      {{- end }}
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
{{- end -}}

{{/* Commands of the Jobs and when they run, as an object: cert-manager leaves its Secrets behind. */}}
{{- define "netmail.certificatesCommands" -}}
{{- if eq .Values.certificates.mode "hook" }}
issue: pre-install,pre-upgrade
{{- end }}
{{- if has .Values.certificates.mode (list "hook" "cert-manager") }}
remove: post-delete
{{- end }}
{{- end -}}

{{/* Hooks that make what a Job needs and remove it when all went well. */}}
{{- define "netmail.certificatesHook" -}}
helm.sh/hook: {{ include "netmail.certificatesCommands" .root | fromYaml | values | sortAlpha | reverse | join "," }}
helm.sh/hook-weight: "-20"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* Service account and rights: (dict "root" $ "component" "certificates" "hook" true). */}}
{{- define "netmail.certificatesAccess" -}}
{{- $name := include "netmail.name" . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "netmail.certificatesMetadata" . | nindent 2 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "netmail.certificatesMetadata" . | nindent 2 }}
rules:
  {{- if eq .root.Values.certificates.mode "hook" }}
  - apiGroups: [""]
    resources: [secrets]
    verbs: [create]
  {{- end }}
  - apiGroups: [""]
    resources: [secrets]
    resourceNames:
      - {{ .root.Release.Name }}-ca
      {{- if .hook }}
      - {{ .root.Release.Name }}-cert-manager-ca
      {{- end }}
      - {{ .root.Release.Name }}-tls
      {{- range list "pop-imap" "smtp" "deliver" "nmap" "connmgr" "admin" }}
      - {{ $.root.Release.Name }}-grpc-{{ . }}
      {{- end }}
    verbs: {{ .hook | ternary (list "get" "patch" "delete") (list "get" "patch") | toJson }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "netmail.certificatesMetadata" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- define "netmail.certificatesMetadata" -}}
name: {{ include "netmail.name" . }}
labels:
  {{- include "netmail.labels" . | nindent 2 }}
{{- if .hook }}
annotations:
  {{- include "netmail.certificatesHook" . | nindent 2 }}
{{- end }}
{{- end -}}
