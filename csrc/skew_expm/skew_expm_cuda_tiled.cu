// skew_expm of large matrices.
