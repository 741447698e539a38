#!/bin/bash
# Dump the database to /backups, once.
set -euo pipefail
file=/backups/$DB_NAME-$(date -u +%Y%m%dT%H%M%SZ).sql.gz
export MYSQL_PWD
MYSQL_PWD=$(cat /run/secrets/database_password)
mariadb-dump --host="$DB_HOST" --user="$DB_USER" --single-transaction "$DB_NAME" | gzip >"$file.new"
mv "$file.new" "$file"
echo "wrote $file ($(stat -c %s "$file") bytes)"
