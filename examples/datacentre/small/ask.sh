#!/bin/sh
# Ask an API server; one that does not answer within a second is left for the other.
printf 'Content-Type: text/plain\r\n\r\n'
for server in $(nslookup -type=a api | sed -n 's/^Address: *\([0-9.]*\)$/\1/p'); do
    timeout 1 wget -q -O - "http://$server:8000/" && exit
done
