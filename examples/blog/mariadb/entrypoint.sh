#!/bin/bash
# Make the database on an empty disk, then become MariaDB, without root's rights.
set -euo pipefail
DATA=/var/lib/mariadb/data

install -d -o mysql -g mysql /run/mysqld
if [ ! -d "$DATA" ]; then
    chown mysql:mysql /var/lib/mariadb
    # Made beside its place and renamed, so that a container killed half-way starts over.
    rm -rf "$DATA.new"
    mariadb-install-db --user=mysql --datadir="$DATA.new" --skip-test-db --auth-root-authentication-method=socket >/dev/null
    password=$(cat /run/secrets/database_password)
    mariadbd --user=mysql --datadir="$DATA.new" --bootstrap <<SQL
FLUSH PRIVILEGES;
CREATE DATABASE \`$DB_NAME\` CHARACTER SET utf8mb4;
CREATE USER '$DB_USER'@'%' IDENTIFIED BY '${password//\'/\'\'}';
GRANT ALL ON \`$DB_NAME\`.* TO '$DB_USER'@'%';
SQL
    mv "$DATA.new" "$DATA"
fi
exec mariadbd --user=mysql "$@"
