#!/bin/sh
# Prove that all nodes are watched and that an alert reaches the receiver.
set -eu
url=${1:-http://127.0.0.1:${PROMETHEUS_PORT:-9090}}
receiver=${2:-http://127.0.0.1:${RECEIVER_PORT:-8084}}
wanted=${NODES:-3}
get() { curl -fs --max-time 5 --retry 60 --retry-delay 1 --retry-all-errors "$@" || { echo "monitoring: no answer" >&2; exit 1; }; }

# until_seen NAME COMMAND…: repeat the command until it succeeds, for a minute.
until_seen() {
    name=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || { echo "monitoring: $name was not seen" >&2; exit 1; }
        sleep 1
    done
}
nodes_up() { get "$url/api/v1/query?query=sum(up%7Bjob%3D%22node%22%7D)" | grep -q "\"$wanted\"\]"; }
alert_received() { get "$receiver/" | grep -q 'firing: FleetWatched'; }

until_seen "$wanted nodes up" nodes_up
until_seen "an alert at the receiver" alert_received
echo "monitoring answers: $wanted nodes up; $(get "$receiver/" | tail -n 1)"
