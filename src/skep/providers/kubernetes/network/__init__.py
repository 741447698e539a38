"""Networks, names, virtual IPs, published ports and endpoints of tenants as objects of a cluster."""
