"""Simulated half-maps whose signal is known exactly: whole maps (`half_maps`), and training patches (`stream`)."""
