"""What the network would do: frames, slices, policy, decisions and the rules they become. Pure."""
