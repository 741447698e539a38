#!/bin/bash
# Make the database cluster on an empty disk, then become PostgreSQL, without root's rights.
set -euo pipefail

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }

if [ ! -e "$PGDATA/PG_VERSION" ]; then
    chown postgres:postgres "$(dirname "$PGDATA")"
    # Made beside its place and renamed, so that a container killed half-way starts over.
    rm -rf "$PGDATA.new"
    install -o postgres -m 0400 /run/secrets/db_password /run/db_password
    as_postgres initdb --pgdata "$PGDATA.new" --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 \
        --locale=C.UTF-8 --pwfile=/run/db_password
    echo "host all all all scram-sha-256" >>"$PGDATA.new/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | as_postgres postgres --single -D "$PGDATA.new" postgres
    rm /run/db_password
    mv "$PGDATA.new" "$PGDATA"
fi

install -d -o postgres -g postgres /run/postgresql
exec setpriv --reuid=postgres --regid=postgres --init-groups "$@" -D "$PGDATA" -c listen_addresses='*'
