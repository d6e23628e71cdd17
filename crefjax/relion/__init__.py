"""crefjax inside RELION: as its external reconstruction program, and as an External job."""
