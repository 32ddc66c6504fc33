"""The real cluster: the `Cluster` port, Events, and what `check` reads. Network I/O."""
