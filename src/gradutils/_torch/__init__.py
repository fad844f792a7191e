"""Plain torch modules: `probe`, `diagnose` and their look ahead. Importing this loads torch."""
