#!/bin/sh
# Prove that the name leads to both services, by the path.
set -eu
url=${1:-http://site.localhost}
get() { curl -fs --max-time 5 --retry 30 --retry-delay 1 --retry-all-errors "$@" || { echo "site: no answer" >&2; exit 1; }; }

get "$url/" | grep -q "A site"
get "$url/api/" | grep -q '"service": "api"'
echo "site answers under its name"
