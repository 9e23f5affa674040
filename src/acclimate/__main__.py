"""`python -m acclimate`: what launchers of several processes start (`torchrun -m acclimate adapt ...`)."""

from acclimate.cli.main import console_script

if __name__ == "__main__":
    console_script()
