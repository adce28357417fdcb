"""The executable contract of a mixer (`check`)."""
