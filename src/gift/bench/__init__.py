"""The protocol: defend, attack, measure, keep the record."""
