<?php
// WordPress's configuration, from the environment and the secrets of the container.
define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_HOST', getenv('DB_HOST'));
define('DB_PASSWORD', trim(file_get_contents('/run/blog/database_password')));
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');

// The blog answers under whatever name it is asked for.
$host = $_SERVER['HTTP_HOST'] ?? '127.0.0.1';
define('WP_HOME', 'http://' . $host);
define('WP_SITEURL', 'http://' . $host);

// Nothing here reaches the outside, and updates come with a new image.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISALLOW_FILE_MODS', true);

foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
          'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $name) {
    define($name, hash_hmac('sha256', $name, DB_PASSWORD));
}
