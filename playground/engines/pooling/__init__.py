"""Which engines there are, which come and which leave: the rooms of `playground.engines.pool`."""
