"""How many replicas meet the SLA: waiting-time tail, occupancy tail, joint choice. Pure."""
