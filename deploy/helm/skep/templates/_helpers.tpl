{{/* What the parts have in common.  Each takes a dict: root (the top of everything), component. */}}

{{- define "skep.selector" -}}
app.kubernetes.io/name: skep
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "skep.labels" -}}
{{ include "skep.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "skep.secret" -}}
{{ .Values.secret | default .Release.Name }}
{{- end }}

{{- define "skep.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "skep.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  labels:
    {{- include "skep.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{- define "skep.pod" -}}
serviceAccountName: {{ .root.Release.Name }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "skep.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "skep.selector" . | nindent 8 }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "skep.selector" . | nindent 8 }}
{{- end }}

{{- define "skep.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "skep.environment" -}}
envFrom:
  - configMapRef:
      name: {{ .root.Release.Name }}
env:
  - name: SKEP_DATABASE
    valueFrom:
      secretKeyRef:
        name: {{ include "skep.secret" .root }}
        key: database
  - name: SKEP_BUS
    valueFrom:
      secretKeyRef:
        name: {{ include "skep.secret" .root }}
        key: bus
{{- end }}

{{/* Also: port, scheme. */}}
{{- define "skep.probes" -}}
startupProbe:
  httpGet:
    path: /readyz
    port: {{ .port }}
    scheme: {{ .scheme }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
livenessProbe:
  httpGet:
    path: /healthz
    port: {{ .port }}
    scheme: {{ .scheme }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: {{ .port }}
    scheme: {{ .scheme }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}

{{- define "skep.mounts" -}}
volumeMounts:
  - name: state
    mountPath: /var/lib/skep
  - name: tmp
    mountPath: /tmp
  - name: keys
    mountPath: /keys
    readOnly: true
{{- end }}

{{/* Also: keys (of the Secret), size (of what it may write). */}}
{{- define "skep.volumes" -}}
volumes:
  - name: state
    emptyDir:
      sizeLimit: {{ .size }}
  - name: tmp
    emptyDir:
      sizeLimit: 1Gi
  {{- include "skep.keys" . | nindent 2 }}
{{- end }}

{{- define "skep.keys" -}}
- name: keys
  secret:
    secretName: {{ include "skep.secret" .root }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}

{{/* A change of the configuration makes pods anew. */}}
{{- define "skep.checksum" -}}
checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
{{- end }}
