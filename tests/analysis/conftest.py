import sys
from pathlib import Path

# The studies are no part of the installed package: they are found from the project's root.
sys.path.insert(0, str(Path(__file__).parents[2]))
