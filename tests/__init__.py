"""The tests: a package a room, so that one may import what another has."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
