"""Where nbgrader finds the course: sources, releases, and one ignored folder for a class's work."""

from pathlib import Path

import qlearn  # noqa: F401  sets how threads wait, in the kernels that nbgrader starts too

c = get_config()  # noqa: F821  nbgrader calls this file with it

# Absolute, because JupyterLab's Validate button changes the server's folder while it works.
COURSE = Path(__file__).resolve().parent
# A class's work lives here; the gradebook's database needs the folder to be there.
(COURSE / "classroom").mkdir(exist_ok=True)

c.CourseDirectory.course_id = "qlearn"
c.CourseDirectory.root = str(COURSE)
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "notebooks/exercises"
c.CourseDirectory.submitted_directory = "classroom/submitted"
c.CourseDirectory.autograded_directory = "classroom/autograded"
c.CourseDirectory.feedback_directory = "classroom/feedback"
c.CourseDirectory.solution_directory = "classroom/solution"
c.CourseDirectory.db_url = f"sqlite:///{COURSE / 'classroom' / 'gradebook.db'}"
# nbgrader's metadata is what it works with; a learner's answers/ are not part of a release.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "answers"]

c.ClearSolutions.code_stub = {"python": "# Your code here.\nraise NotImplementedError"}
c.ClearSolutions.text_stub = "Your answer here."
# Training and timing take their time; a hang must still end.
c.ExecutePreprocessor.timeout = 600
# nbgrader gives no points to a test cell that wrote to stderr, be it a warning or a progress bar.
# What fails is an output of another kind, so its kernels have one stream.
c.Execute.extra_arguments = ["--IPKernelApp.outstream_class=qlearn.system.kernel.ShownAsStdout"]
