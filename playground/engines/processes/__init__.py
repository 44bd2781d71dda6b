"""How an engine gets a process of its own, and what goes over the wire: the rooms of `playground.engines.process`."""
