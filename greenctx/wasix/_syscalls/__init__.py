"""The functions of WASI and WASIX that guests call."""
