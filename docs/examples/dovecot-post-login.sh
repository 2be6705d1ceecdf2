#!/bin/sh
# Tells the Connection Manager who has logged in from where, then goes on with the session whatever the answer was.
# Dovecot gives USER and IP. Install as /usr/local/lib/netmail/post-login, mode 0755; needs curl.
curl --silent --max-time 2 --output /dev/null \
  --unix-socket /run/netmail/dovecot/report \
  --data-urlencode "login=$USER" --data-urlencode "remote=$IP" \
  --data "protocol=imap&success=true" \
  "http://netmail/?command=report" </dev/null >/dev/null 2>&1
exec "$@"
