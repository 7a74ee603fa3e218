"""What the switch holds: rule values, cookies, the ledger and its tags. Pure, no input or output."""
