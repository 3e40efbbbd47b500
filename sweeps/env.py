"""Environmental sound: does a domain close to general audio need distillation at all?

Command: python sweeps/env.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 75 to 105 s, two at a time on two cores (six small packs, 2026-11-25); the base 10 minutes, once.
Expect:  a front near the base; the replay ratio matters little.
"""

from sonar import SMALL_SCALE, SONAR_SPACE, Sweep, main

SWEEP = Sweep(
    domain="env",
    base=SMALL_SCALE,
    space=SONAR_SPACE,
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=24,
)

if __name__ == "__main__":
    main(SWEEP)
