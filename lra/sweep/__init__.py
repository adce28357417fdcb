"""Many runs: local and Slurm launchers, tuning, status, reproduction."""
