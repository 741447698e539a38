#!/bin/sh
# Prove that the proxy spreads requests over its backends, and sends /assets/ elsewhere.
set -eu
url=${1:-http://127.0.0.1:${PROXY_PORT:-8082}}
wanted=${WHOAMI_REPLICAS:-3}
get() { curl -fs --max-time 5 --retry 60 --retry-delay 1 --retry-all-errors "$@" || { echo "proxy: no answer" >&2; exit 1; }; }

get "$url/assets/robots.txt" | grep -q Disallow
tries=0
while :; do
    hosts=$(for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do get "$url/"; done | sed 's/.*"host": "\([^"]*\)".*/\1/' | sort -u)
    [ "$(echo "$hosts" | wc -l)" -lt "$wanted" ] || break
    tries=$((tries + 1))
    [ $tries -lt 30 ] || { echo "proxy: only these answer:" $hosts >&2; exit 1; }
    sleep 1
done
echo "proxy answers through:" $hosts
