"""Speech emotion: can prosody be learnt from few speakers without losing general sound?

Command: python sweeps/speech.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 2 to 5 minutes on one busy core with six small packs (2026-11-24); `--smoke`: 4 minutes in all.
Expect:  few groups, so the probe is noisy: read differences against a repeat of the base.
"""

from sonar import SMALL_SCALE, SONAR_SPACE, Sweep, main

SWEEP = Sweep(
    domain="speech",
    base=SMALL_SCALE,
    space=SONAR_SPACE,
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=24,
)

if __name__ == "__main__":
    main(SWEEP)
