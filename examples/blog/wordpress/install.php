<?php
// Make the tables and the first user, unless they are there.
define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = '127.0.0.1';
require '/usr/share/wordpress/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';

if (!is_blog_installed()) {
    // It would send a mail with the password.
    add_filter('pre_wp_mail', '__return_true');
    wp_install(getenv('BLOG_TITLE'), getenv('BLOG_ADMIN'), 'admin@example.org', true, '',
        trim(file_get_contents('/run/secrets/blog_password')));
    update_option('template', 'twentytwentythree');
    update_option('stylesheet', 'twentytwentythree');
    echo "the blog is installed\n";
}
