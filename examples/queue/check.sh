#!/bin/sh
# Prove that work is done: queue a job, wait for its result.
set -eu
url=${1:-http://127.0.0.1:${QUEUE_PORT:-8081}}
get() { curl -fs --max-time 5 --retry 60 --retry-delay 1 --retry-all-errors "$@" || { echo "queue: no answer" >&2; exit 1; }; }

job=$(get -X POST "$url/jobs?below=100000" | sed 's/.*"job": *"\([^"]*\)".*/\1/')
tries=0
until get "$url/jobs/$job" | grep -q '"primes": *9592'; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { echo "queue: job $job is not done: $(get "$url/jobs/$job")" >&2; exit 1; }
    sleep 0.5
done
echo "queue answers: 9592 primes below 100000; $(get "$url/")"
