#!/bin/sh
# Prove that the shop sells: order something through web and API, and see the count in the database grow.
set -eu
url=${1:-http://127.0.0.1:${SHOP_PORT:-8080}}
get() { curl -fs --max-time 5 --retry 60 --retry-delay 1 --retry-all-errors "$@" || { echo "shop: no answer" >&2; exit 1; }; }
orders() { get "$url/api/shop" | sed 's/.*"orders": *\([0-9]*\).*/\1/'; }

get "$url/" | grep -q '<title>shop</title>'
before=$(orders)
get -X POST -H 'content-type: application/json' -d '{"product": 1}' "$url/api/orders" | grep -q '"order"'
after=$(orders)
[ "$after" -gt "$before" ] || { echo "shop: orders went from $before to $after" >&2; exit 1; }
echo "shop answers: $after orders"
