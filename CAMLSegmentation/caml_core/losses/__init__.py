"""The terms of CAML's objective, as functions of tensors; none knows files or loops."""
