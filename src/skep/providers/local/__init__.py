"""One Linux host: runc, btrfs, bridges, nftables."""
