"""The page, the API, the metrics and health of the running controller, on one port."""
