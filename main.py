"""This program is the command line of a clone; the installed command `score-sde` is the same program.

python main.py --config=configs/digits.py --workdir=runs/digits --mode=train,eval,sample
"""

import sys

try:
    from score_sde.command import run
except ImportError as error:
    sys.exit(f"error: {error}")

if __name__ == "__main__":
    run()
