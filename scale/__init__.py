"""What many hosts cost: the slice source and a push of goal state, with thousands of hosts that have no switch."""
