"""HTTP(S) by name: endpoints, their certificates, and what hosts are told of them."""
