"""The machine under the course: cache, threads, load, warnings, JupyterLab, `qlearn doctor`."""
