"""Where a panel's model runs: on this machine, on a server of the catalog, or on one that the user names."""
