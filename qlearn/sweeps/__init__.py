"""Many schemes on one model: rows measured apart and kept, Pareto fronts, the study of few bits."""
