#!/usr/bin/env bash
# A Mosquitto set-up made by its own tools (passwords of both kinds, ACL with users, patterns and denials, TLS) is
# imported, and PlantOps takes Mosquitto's place: same ports, same clients, same certificates. Who may do what is tried
# on both, user by user and topic by topic, by what is delivered. Where the two differ, the report must have said so,
# and PlantOps must be the one that allows less.
. "$(dirname "$0")/lib.sh"
broker_pid=
subscribers=
cleanup() {
  for pid in $broker_pid $subscribers; do kill "$pid" 2>/dev/null; done
  stop_server
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1

# An authority that Mosquitto's certificates come from; to PlantOps they are somebody else's.
PLANTOPS_DATA_DIR=$work/authority "$plantops" certs init >/dev/null 2>&1 || fail "certs init"
certs=$work/authority/certs
mkdir conf.d
# Ports that are free now.
read -r plain_port tls_port < <(node -e 'const net=require("net"),s=[0,0].map(()=>net.createServer().listen(0,"127.0.0.1"));
  setTimeout(()=>{console.log(s.map(x=>x.address().port).join(" "));s.forEach(x=>x.close())},50)')
cat >mosquitto.conf <<EOF
user root
persistence false
log_dest file $work/mosquitto.log
include_dir $work/conf.d
EOF
cat >conf.d/access.conf <<EOF
allow_anonymous false
password_file $work/passwd
acl_file $work/acl
listener $plain_port 127.0.0.1
listener $tls_port
cafile $certs/ca.crt
certfile $certs/server.crt
keyfile $certs/server.key
EOF
: >passwd
for user in bed-1 bed-2 grower hassio stranger observer writer narrow; do
  mosquitto_passwd -b passwd $user "secret of $user"
done
mosquitto_passwd -H sha512 -b passwd old "secret of old"
mosquitto_passwd -b passwd far/away "secret of far/away"
chmod 600 passwd
cat >acl <<'EOF'
# before the first user: anonymous clients
topic read announcements
user observer
topic read #
user writer
topic write #
user grower
topic readwrite greenhouse/#
topic read devices/+/telemetry
topic write devices/+/commands/+
user hassio
topic homeassistant/#
topic read devices/#
topic deny devices/bed-2/telemetry
user narrow
topic read greenhouse/+/air
topic deny greenhouse/#
topic write announcements
user old
topic zigbee2mqtt/+/set
topic write a b/c
user far/away
topic announcements
pattern readwrite devices/%u/#
pattern write clients/%c/state
pattern read clients/%c/+
EOF
chmod 600 acl

users="bed-1 bed-2 grower hassio stranger narrow old far/away"
topics=(announcements devices/bed-1/telemetry devices/bed-2/telemetry devices/bed-1/commands/pump devices/bed-1 devices/far/away
  greenhouse greenhouse/1/air greenhouse/1/2/air homeassistant/status zigbee2mqtt/plug/set zigbee2mqtt/plug 'a b/c'
  clients/id-bed-1/state clients/id-bed-1/wish clients/id-old/state)
plain=(-h 127.0.0.1 -p "$plain_port")
tls=(-h localhost -p "$tls_port" --cafile "$certs/ca.crt")
as() { who=(-i "id-${1//\//-}" -u "$1" -P "secret of $1"); }

# watch FILE ARGUMENTS...: mosquitto_sub in the background; returns when its SUBACK is there or it has ended.
watch() {
  local out=$1 pid
  shift
  timeout 120 stdbuf -oL mosquitto_sub -d -q 1 -F 'GOT %t %p' "$@" >"$out" 2>&1 &
  pid=$!
  subscribers="$subscribers $pid"
  answered() { grep -q 'Subscribed (mid' "$out" || ! kill -0 $pid; }
  await 10 answered || fail "mosquitto_sub $* has an answer"
}
unwatch() {
  for pid in $subscribers; do
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  subscribers=
}
# verdict QUESTION COMMAND...: one line of the matrix.
verdict() {
  local question=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "$question: allowed"; else echo "$question: denied"; fi
}

# reading: every user subscribes to every topic, and the writer publishes to each.
reading() {
  local user topic filters=()
  rm -f seen.*
  for topic in "${topics[@]}"; do filters+=(-t "$topic"); done
  for user in $users; do
    as "$user"
    watch "seen.${user//\//-}" "${plain[@]}" "${who[@]}" "${filters[@]}"
  done
  as observer
  watch seen.observer "${plain[@]}" "${who[@]}" -t '#'
  as writer
  for topic in "${topics[@]}" end-of-reading; do
    timeout 10 mosquitto_pub "${tls[@]}" "${who[@]}" -q 1 -t "$topic" -m written || fail "the writer publishes to $topic" >&2
  done
  await 10 grep -q 'GOT end-of-reading' seen.observer || fail "the observer sees the end of reading" >&2
  sleep 0.5 # for the others: what they are not given cannot be waited for
  for user in $users; do
    for topic in "${topics[@]}"; do
      verdict "$user reads $topic" grep -qxF "GOT $topic written" "seen.${user//\//-}"
    done
  done
  unwatch
}

# writing: every user publishes to every topic, and the observer looks on.
writing() {
  local user topic version
  as observer
  watch seen.observer "${plain[@]}" "${who[@]}" -t '#'
  for user in $users; do
    as "$user"
    for topic in "${topics[@]}"; do
      timeout 10 mosquitto_pub -V mqttv311 "${tls[@]}" "${who[@]}" -q 1 -t "$topic" -m "$user mqttv311" >/dev/null 2>&1
      timeout 10 mosquitto_pub -V mqttv5 "${plain[@]}" "${who[@]}" -q 1 -t "$topic" -m "$user mqttv5" >/dev/null 2>&1
    done
  done
  as writer
  timeout 10 mosquitto_pub "${plain[@]}" "${who[@]}" -q 1 -t end-of-writing -m written
  await 10 grep -q 'GOT end-of-writing' seen.observer || fail "the observer sees the end of writing" >&2
  for user in $users; do
    for topic in "${topics[@]}"; do
      for version in mqttv311 mqttv5; do
        verdict "$user writes $topic ($version)" grep -qxF "GOT $topic $user $version" seen.observer
      done
    done
  done
  unwatch
}

logins() {
  local way
  for way in plain tls; do
    declare -n where=$way
    verdict "login with a wrong password, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x -u writer -P wrong
    verdict "login with an old hash, wrong, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x -u old -P wrong
    verdict "login of nobody, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x -u nobody -P x
    verdict "login without a name, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x
    verdict "login without a password, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x -u writer
    verdict "login of the writer, $way" timeout 10 mosquitto_pub "${where[@]}" -q 1 -t nowhere -m x -u writer -P 'secret of writer'
  done
}

# matrix FILE: what everybody may do at the broker that runs now. Not in a subshell: the subscribers are children.
matrix() {
  reading >"$1"
  writing >>"$1"
  logins >>"$1"
}

mosquitto -c mosquitto.conf >mosquitto.out 2>&1 &
broker_pid=$!
await 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/$plain_port" || fail "Mosquitto starts"
matrix mosquitto
kill "$broker_pid"
wait "$broker_pid" 2>/dev/null
broker_pid=

export PLANTOPS_DATA_DIR=$work/data
expect "the import" "$plantops" import mosquitto mosquitto.conf --config-out plantops.yaml --apply
cp out report
expect "its configuration is good" "$plantops" config check -c plantops.yaml
"$plantops" serve -c plantops.yaml >serve.log 2>&1 &
server_pid=$!
await 20 grep -q 'PlantOps is ready' serve.log || fail "serve becomes ready with the imported configuration"
matrix plantops

same "both were asked the same questions" "$(sed 's/: [a-z]*$//' plantops | cksum)" "$(sed 's/: [a-z]*$//' mosquitto | cksum)"
same "some of them are allowed and some denied" "$(sed 's/.*: //' mosquitto | sort -u | tr '\n' ' ')" "allowed denied "
diff mosquitto plantops >differences
sed -n 's/^</      Mosquitto:/p; s/^>/      PlantOps: /p' differences
# far/away cannot be an account here, and without its denial the rule devices/# of hassio was left out.
listed() { sed -n '/^No equivalent/,/^Accounts/p' report | grep -qF "$1"; }
expect "the report lists the user that cannot be taken over" listed 'far/away:'
expect "the report lists the rule that a denial narrows" listed 'topic read devices/#'
expect "the report lists that denial" listed 'topic deny devices/bed-2/telemetry'
expect "the report lists the rule for anonymous clients" listed 'topic read announcements'
same "$(wc -l <mosquitto) verdicts, $(grep -c '^<' differences) of them differ: none is wider than Mosquitto's" \
  "$(grep '^> .*: allowed$' differences)" ""
same "none differs that the report does not list" "$(grep '^<' differences | grep -vE '^< (far/away |hassio reads devices/)')" ""
finish
