{{/*
One agent's pod template: (dict "root" $ "component" "smtp" "role" "smtp" "values" .Values.serve
"args" (list "serve" "--server" "mail") "ports" (list (dict "name" "smtp" "port" 2525)) "tls" true
"secrets" (list (dict "name" "postgresql" "secret" "db" "path" "/etc/netmail/postgresql"))). VALUES holds
what is said of this workload; the chart's own values hold the rest. "claimed": the workload claims the
volume of the state directory, `state`; else it ends with the pod, and "room" says its size and storageClass.
*/}}
{{- define "netmail.podTemplate" -}}
{{- $root := .root -}}
{{- $values := .values -}}
metadata:
  labels:
    {{- include "netmail.labels" . | nindent 4 }}
    {{- if .tls }}
    netmail-listeners: public
    {{- end }}
    {{- with include "netmail.mesh.podLabels" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $annotations := merge (dict) $root.Values.podAnnotations (include "netmail.mesh.podAnnotations" . | fromYaml) }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "netmail.serviceAccountName" . }}
  automountServiceAccountToken: {{ .apiToken | default false }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $root.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $root.Values.topologySpreadConstraints }}
    {{- toYaml $root.Values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "netmail.selectorLabels" . | nindent 10 }}
    {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "netmail.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
        - --config
        - /etc/netmail/config/netmail.yaml
        - --state
        - /var/lib/netmail
      env:
        - name: NETMAIL_KUBERNETES
          value: "1"
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: POD_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        {{- with $root.Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- range .ports }}
        - name: {{ .name }}
          containerPort: {{ .port }}
          protocol: {{ .protocol | default "TCP" }}
          {{- with .hostPort }}
          hostPort: {{ . }}
          {{- end }}
        {{- end }}
        - name: http
          containerPort: 7780
          protocol: TCP
      startupProbe:
        httpGet:
          path: /healthz/ready
          port: http
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 150
      readinessProbe:
        httpGet:
          path: /healthz/ready
          port: http
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 3
      livenessProbe:
        httpGet:
          path: /healthz/live
          port: http
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      lifecycle:
        preStop:
          sleep:
            seconds: {{ $root.Values.preStopSeconds }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop:
            - ALL
      resources:
        {{- toYaml ($values.resources | default $root.Values.resources) | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/netmail/config
          readOnly: true
        {{- if eq $root.Values.global.grpc.security "mtls" }}
        - name: grpc
          mountPath: /etc/netmail/grpc
          readOnly: true
        {{- end }}
        {{- if .tls }}
        - name: tls
          mountPath: /etc/netmail/tls
          readOnly: true
        {{- end }}
        {{- range .secrets }}
        - name: {{ .name }}
          mountPath: {{ .path }}
          readOnly: true
        {{- end }}
        - name: state
          mountPath: /var/lib/netmail
        - name: tmp
          mountPath: /tmp
        {{- with $root.Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "netmail.configMap" $root }}
    {{- if eq $root.Values.global.grpc.security "mtls" }}
    - name: grpc
      secret:
        secretName: {{ include "netmail.grpcSecret" . }}
        defaultMode: 0440
    {{- end }}
    {{- if .tls }}
    - name: tls
      secret:
        secretName: {{ include "netmail.tlsSecret" $root }}
        defaultMode: 0440
    {{- end }}
    {{- range .secrets }}
    - name: {{ .name }}
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
    {{- end }}
    {{- if not .claimed }}
    - name: state
      {{- include "netmail.volumeOfThePod" (.room | default dict) | nindent 6 }}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- with $root.Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A volume that ends with its pod; takes its size, empty for the node's disk, and storageClass. */}}
{{- define "netmail.volumeOfThePod" -}}
{{- if .size -}}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes:
        - ReadWriteOnce
      {{- with .storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .size }}
{{- else -}}
emptyDir: {}
{{- end }}
{{- end -}}
