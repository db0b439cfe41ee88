"""WASIX's calls besides contexts, signals and locks; and the functions of WASI under WASIX's name."""
