"""What an attacker could try, and what comes of it: one test each, named after the attempt (docs/security.md)."""
