"""Bioacoustics: how much animal sound can an encoder learn before it forgets the rest?

Command: python sweeps/bio.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 75 to 105 s, two at a time on two cores (six small packs, 2026-11-25); the base 10 minutes, once.
Expect:  DCPT loses what the base knew of ten birds (-27 %), SONAR holds it; numbers and spread in README.md.
"""

from sonar import SMALL_SCALE, SONAR_SPACE, Sweep, main

SWEEP = Sweep(
    domain="bio",
    base=SMALL_SCALE,
    space=SONAR_SPACE,
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=24,
)

if __name__ == "__main__":
    main(SWEEP)
