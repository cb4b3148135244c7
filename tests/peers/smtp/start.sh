#!/usr/bin/env bash
# Starts a mail server (Debian's postfix) with everything in one folder: config, spool, log, mailboxes.
#
#   start.sh FOLDER STARTTLS_PORT TLS_PORT
#
# FOLDER holds cert.pem and key.pem. The user is `ceiba`; the password is the first line of standard input. Mail to
# ann@, bob@ and eve@example.test comes into Maildirs FOLDER/mail/NAME/; to others of that domain it is refused, and
# so is mail over 1 MiB; ann+ANYTHING@ is ann@ too. One mail takes 100 recipients. Needs root, as postfix does. stop.sh ends it.
set -euo pipefail
folder=$(realpath "$1") starttls=$2 tls=$3
read -r password
mkdir -p "$folder"/{spool,data,mail,sasl}
chmod 755 "$folder" "$folder/mail"
chown postfix "$folder/data"
chown nobody "$folder/mail"
chmod 600 "$folder/key.pem"

cat >"$folder/main.cf" <<EOF
compatibility_level = 3.6
queue_directory = $folder/spool
data_directory = $folder/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = $folder/log
maillog_file_prefixes = $folder
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.test
mydestination =
mynetworks =
alias_maps =
alias_database =
message_size_limit = 1048576
recipient_delimiter = +
smtpd_recipient_limit = 100
virtual_mailbox_domains = example.test
virtual_mailbox_base = $folder/mail
virtual_mailbox_maps = inline:{ { ann@example.test = ann/ }, { bob@example.test = bob/ }, { eve@example.test = eve/ } }
virtual_mailbox_limit = 0
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
smtpd_tls_cert_file = $folder/cert.pem
smtpd_tls_key_file = $folder/key.pem
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = $folder/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_reject_unlisted_recipient = yes
smtpd_delay_reject = yes
EOF
cat >"$folder/master.cf" <<EOF
127.0.0.1:$starttls inet n - n - - smtpd
127.0.0.1:$tls inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
EOF
cat >"$folder/sasl/smtpd.conf" <<EOF
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: $folder/sasl/db
mech_list: PLAIN LOGIN
EOF
printf '%s' "$password" | saslpasswd2 -p -c -f "$folder/sasl/db" -u mail.example.test ceiba
chown postfix "$folder/sasl/db"
postfix -c "$folder" start >/dev/null 2>"$folder/start.txt" || {
  cat "$folder/start.txt" >&2
  exit 1
}
