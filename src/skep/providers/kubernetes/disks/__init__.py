"""Disks of tenants as claims, and how what they hold goes in and out."""
