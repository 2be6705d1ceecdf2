#!/usr/bin/env bash
# Installs the chart with its default values and two users into a namespace `netmail` of restricted Pod Security, and
# says what to try. Usage: helm/try.sh KUBECTL HELM (commands; they may have several words).
set -euo pipefail
kubectl=$1 helm=$2
chart=$(cd "$(dirname "$0")" && pwd)/netmail
namespace=netmail release=netmail
read -r -a image_values <<<"${IMAGE_VALUES:-}"

$kubectl create namespace "$namespace" --dry-run=client -o yaml | $kubectl apply -f - >/dev/null
$kubectl label --overwrite namespace "$namespace" \
  pod-security.kubernetes.io/enforce=restricted >/dev/null
$helm upgrade --install "$release" "$chart" --namespace "$namespace" --wait --timeout 3m \
  --set domain=example.org \
  --set-json 'initialUsers=[{"name":"alice","password":"wonderland"},{"name":"bob","password":"builder"}]' \
  "${image_values[@]}"

address() {
  $kubectl -n "$namespace" get service "$release-$1" \
    -o jsonpath='{.status.loadBalancer.ingress[0].ip}'
}
smtp=$(address smtp) mail=$(address pop-imap)
cat <<TEXT

SMTP         $smtp:25   submission $smtp:587 (STARTTLS), $smtp:465
POP3         $mail:110  $mail:995
IMAP         $mail:143  $mail:993

From a machine that reaches these addresses (users alice / wonderland, bob / builder):

  printf 'From: alice@example.org\r\n\r\nhello\r\n' | curl -k --ssl-reqd smtp://$smtp:587 -u alice:wonderland \\
      --mail-from alice@example.org --mail-rcpt bob@example.org -T -
  curl -k --ssl-reqd imap://$mail/INBOX -u bob:builder
TEXT
