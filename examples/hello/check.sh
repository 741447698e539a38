#!/bin/sh
# Prove that hello answers: check.sh [URL]
set -eu
url=${1:-http://127.0.0.1:${HELLO_PORT:-8088}/}
page=$(curl -fs --max-time 5 --retry 30 --retry-delay 1 --retry-all-errors "$url") ||
    { echo "hello: no answer at $url" >&2; exit 1; }
echo "$page" | grep -o 'container <code>.*</code>' | sed 's/<[^>]*>//g; s/^/hello answers: /'
