"""All input and output: the os-ken app, OpenFlow, OVSDB, slice sources, configuration, commands."""
