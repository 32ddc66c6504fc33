"""The user's API: PDAutoscaler files and the CRD, one model for both, and the Service they make."""
