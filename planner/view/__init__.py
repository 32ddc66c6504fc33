"""What people see: the live view, the report, tables and explanations. Reads, never decides."""
