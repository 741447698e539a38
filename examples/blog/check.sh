#!/bin/sh
# Prove that the blog answers from its database, and that its first user may log in.
set -eu
url=${1:-http://127.0.0.1:${BLOG_PORT:-8083}}
here=$(dirname "$0")
get() { curl -fs --max-time 10 --retry 90 --retry-delay 1 --retry-all-errors "$@" || { echo "blog: no answer" >&2; exit 1; }; }

get "$url/" | grep -q 'Hello world!'
cookies=$(mktemp)
trap 'rm -f "$cookies"' EXIT
get "$url/wp-login.php" -c "$cookies" -o /dev/null
get "$url/wp-login.php" -b "$cookies" -c "$cookies" -o /dev/null --data-urlencode "log=${BLOG_ADMIN:-beekeeper}" \
    --data-urlencode "pwd=$(cat "$here/secrets/blog_password.txt")" -d 'wp-submit=Log+In&testcookie=1'
grep -q wordpress_logged_in "$cookies" || { echo "blog: the first user cannot log in" >&2; exit 1; }
echo "blog answers: $(get "$url/" | grep -o '<title>[^<]*' | sed 's/<title>//')"
