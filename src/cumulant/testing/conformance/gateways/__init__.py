"""Rules of the port `traffic` for what every gateway does with requests: faults, life, encryption."""
