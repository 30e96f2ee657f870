"""The maths, on torch alone: rows are repetitions.

Letters used for shapes: R repetitions (rows), P weights, B batch rows, T weight updates per
hyperparameter update, K hyperparameter updates, i look-back distance."""
