"""How often `diagnose` is right, on models whose true state is settled without it."""
