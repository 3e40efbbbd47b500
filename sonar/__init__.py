"""SONAR."""
