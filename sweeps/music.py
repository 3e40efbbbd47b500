"""Music: do instruments gain from adaptation when the prior corpus already holds music?

Command: python sweeps/music.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 75 to 105 s, two at a time on two cores (six small packs, 2026-11-25); the base 10 minutes, once.
Expect:  the smallest shift of the four domains, so the least forgetting even without replay.
"""

from sonar import SMALL_SCALE, SONAR_SPACE, Sweep, main

SWEEP = Sweep(
    domain="music",
    base=SMALL_SCALE,
    space=SONAR_SPACE,
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=24,
)

if __name__ == "__main__":
    main(SWEEP)
