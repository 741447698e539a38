#!/bin/sh
# busybox httpd runs this for "/", because there is no index.html.
address=$(ip -4 -o addr show scope global | awk '{sub("/.*", "", $4); print $4; exit}')
cat <<PAGE
Content-Type: text/html; charset=utf-8

<!doctype html>
<title>hello from skep</title>
<style>body{font:1.2rem system-ui;margin:15vh auto;max-width:34rem}code{background:#eee;padding:.1em .3em}</style>
<h1>Hello from skep</h1>
<p>This page comes from the container <code>$(hostname)</code> at <code>${address:-no address}</code>.
PAGE
