#!/bin/sh
# Redis with the password of the secret, which must not be readable on its command line.
set -eu
chown redis:redis /data
install -d -o redis -g redis -m 0700 /run/redis
umask 077
{ echo "include /etc/redis/skep.conf"; echo "requirepass $(cat /run/secrets/broker_password)"; } >/run/redis/redis.conf
chown redis:redis /run/redis/redis.conf
exec setpriv --reuid=redis --regid=redis --init-groups redis-server /run/redis/redis.conf
