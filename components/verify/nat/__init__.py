"""A node's NAT rules as data, by iptables or nftables, and what they do to a packet."""
