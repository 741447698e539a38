#!/bin/sh
# Install the blog on an empty database, then become Apache.
set -eu
# Apache's workers are not root and may not read the secrets themselves.
install -d -o www-data -g www-data -m 0700 /run/blog
install -o www-data -g www-data -m 0400 /run/secrets/database_password /run/blog/database_password
chown www-data:www-data /var/lib/wordpress/wp-content/uploads
php /usr/local/share/blog/install.php

# Debian's file asks for variables that are not set, and exports what it sets.
set +u
. /etc/apache2/envvars
set -u
mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR"
rm -f "$APACHE_PID_FILE"
exec "$@"
