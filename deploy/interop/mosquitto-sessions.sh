#!/usr/bin/env bash
# mosquitto_sub, mosquitto_pub and mosquitto_rr in every version: sessions that are away and come back, retained messages, wills,
# properties, a request with its answer.
. "$(dirname "$0")/lib.sh"
responder=
cleanup() { [ -z "$responder" ] || kill "$responder" 2>/dev/null; stop_server; rm -rf "$work"; }
trap cleanup EXIT
start_server
add_user home
plain=(-h localhost -p "$tcp_port" -u home -P home-password)
tls=(-h localhost -p "$tls_port" --cafile "$ca" -u home -P home-password)
pub() { timeout 20 mosquitto_pub -V "$version" "${tls[@]}" "$@"; }
sub() { timeout 20 stdbuf -oL mosquitto_sub -V "$version" "${plain[@]}" "$@"; }
one_line() { tr '\n' ' ' <"$work/out"; }

for version in mqttv31 mqttv311 mqttv5; do
  name=${version#mqtt}
  for qos in 0 1 2; do
    for got in 0 1 2; do
      sub -q $got -t "$name/live" -C 1 -d >"$work/live" 2>&1 &
      await 10 grep -q 'Subscribed (mid' "$work/live" || fail "$name: subscribes with QoS $got"
      pub -q $qos -t "$name/live" -m here
      wait $! || fail "$name: QoS $qos to a subscriber of QoS $got"
      same "$name: QoS $qos to a subscriber of QoS $got" "$(sed -n 's/.*received PUBLISH (d0, q\(.\), r0.*/\1/p' "$work/live")" $((qos < got ? qos : got))
    done
  done

  keep=(-i "keep-$name" -c -q 2 -t "$name/queue")
  [ $version != mqttv5 ] || keep+=(-x 3600)
  expect "$name: a session is made and left" sub "${keep[@]}" -E
  for qos in 0 1 2; do
    seq -f "$qos-%g" 50 | pub -q $qos -t "$name/queue" -l || fail "$name: publish to who is away"
  done
  sub "${keep[@]}" -C 100 >"$work/out" 2>&1
  same "$name: what came meanwhile with QoS 1, in its order" "$(grep ^1- "$work/out")" "$(seq -f '1-%g' 50)"
  same "$name: and with QoS 2" "$(grep ^2- "$work/out")" "$(seq -f '2-%g' 50)"
  same "$name: each once" "$(wc -l <"$work/out")" 100
  pub -q 1 -t "$name/queue" -m last
  same "$name: nothing comes twice" "$(sub "${keep[@]}" -C 1)" last

  pub -q 1 -r -t "$name/state/a" -m on
  pub -q 2 -r -t "$name/state/b" -m off
  sub -q 2 -t "$name/state/+" -C 2 -F '%t %p %q %r' >"$work/out"
  same "$name: retained messages" "$(sort "$work/out")" "$name/state/a on 1 1
$name/state/b off 2 1"
  pub -q 1 -r -n -t "$name/state/a"
  same "$name: one is removed" "$(sub -q 2 -t "$name/state/+" -C 1 -F '%t')" "$name/state/b"

  stdbuf -oL mosquitto_sub -V $version "${plain[@]}" -t "$name/other" -i "dying-$name" --will-topic "$name/will" --will-payload gone \
    --will-qos 2 --will-retain -d >"$work/dying" 2>&1 &
  dying=$!
  await 10 grep -q 'Subscribed (mid' "$work/dying" || fail "$name: a client with a will subscribes"
  disown $dying
  kill -9 $dying
  same "$name: the will of who is gone is retained" "$(sub -q 2 -t "$name/will" -C 1 -F '%p %q')" 'gone 2'
done

version=mqttv5
same "v5: properties arrive" "$(
  sub -q 1 -t props -C 1 -F '%C %F %R %D %P %E' -d >"$work/props" 2>&1 &
  await 10 grep -q 'Subscribed (mid' "$work/props"
  pub -q 1 -t props -m x -D publish content-type text/plain -D publish payload-format-indicator 1 -D publish response-topic answers \
    -D publish correlation-data 7 -D publish user-property k v -D publish user-property k w -D publish message-expiry-interval 60
  wait $!
  grep '^text/plain' "$work/props" | sed 's/ \(60\|59\)$/ counted/'
)" 'text/plain 1 answers 7 k:v k:w counted'
expect "v5: a session that expires at once" sub -i brief -c -q 1 -x 0 -t brief -E
pub -q 1 -t brief -m lost
expect "v5: is gone" sub -i brief -c -q 1 -t brief -E -x 0
same "v5: with what was for it" "$(sub -i brief -c -q 1 -x 0 -t brief -t v5/state/b -C 1)" off

# Everything that was kept outlives the server, however it ends.
for end in KILL TERM; do
  for version in mqttv31 mqttv311 mqttv5; do
    name=${version#mqtt}
    keep=(-i "lasting-$name" -c -q 2 -t "$name/lasting")
    [ $version != mqttv5 ] || keep+=(-x 3600)
    sub "${keep[@]}" -E || fail "$name: a session is made and left"
    for qos in 1 2; do seq -f "$qos-%g" 20 | pub -q $qos -t "$name/lasting" -l; done
    pub -q 1 -r -t "$name/kept" -m "before $end"
  done
  disown "$server_pid"
  kill -$end "$server_pid"
  await 20 bash -c "! kill -0 $server_pid" || fail "the server ends"
  start_server
  plain=(-h localhost -p "$tcp_port" -u home -P home-password)
  tls=(-h localhost -p "$tls_port" --cafile "$ca" -u home -P home-password)
  for version in mqttv31 mqttv311 mqttv5; do
    name=${version#mqtt}
    keep=(-i "lasting-$name" -c -q 2 -t "$name/other")
    [ $version != mqttv5 ] || keep+=(-x 3600)
    sub "${keep[@]}" -C 40 >"$work/out" 2>&1 # it subscribes to something else: the subscription is in the session
    same "$name: after SIG$end the session has its messages of QoS 1" "$(grep ^1- "$work/out")" "$(seq -f '1-%g' 20)"
    same "$name: and of QoS 2" "$(grep ^2- "$work/out")" "$(seq -f '2-%g' 20)"
    same "$name: after SIG$end the retained message is there" "$(sub -t "$name/kept" -C 1 -F '%p %r')" "before $end 1"
  done
done

/usr/bin/python3 "$top/deploy/interop/responder.py" "$tcp_port" home home-password >"$work/responder" 2>&1 &
responder=$!
await 10 grep -q ready "$work/responder" || fail "the responder is ready: $(cat "$work/responder")"
same "v5: mosquitto_rr gets its answer" "$(timeout 20 mosquitto_rr -V mqttv5 "${plain[@]}" -q 1 -t ask/v5 -e answer/v5 -m 'how warm?')" 'HOW WARM?'
same "v311: mosquitto_rr gets its answer" "$(timeout 20 mosquitto_rr -V mqttv311 "${plain[@]}" -q 1 -t ask/v311 -e answer/v311 -m 'how warm?')" 'HOW WARM?'
finish
