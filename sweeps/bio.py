"""Bioacoustics: how much animal sound can an encoder learn before it forgets the rest?

Command: python sweeps/bio.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 2 to 5 minutes on one busy core with six small packs (2026-11-24); `--smoke`: 4 minutes in all.
Expect:  DCPT at the forgetful end of the plane; SONAR near the base's retention.
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
