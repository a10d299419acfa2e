"""One CAML step, the loop around it, its checkpoints, and the plan that is made before."""
