"""The process that runs: devices, signals, heartbeat, progress, numerics."""
