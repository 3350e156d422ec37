"""The course as nbgrader's configuration describes it: folders, gradebook and exercises."""

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIGURATION = "nbgrader_config.py"
DEPTH, LISTED = 4, 50  # of folders that are looked at, and that are named


@dataclass(frozen=True)
class Course:
    """A course.

    Attributes
    ----------
    app
        nbgrader's application, which carries the configuration.
    folders
        nbgrader's ``CourseDirectory``.
    """

    app: Any
    folders: Any

    @classmethod
    def here(cls) -> "Course":
        """Read the configuration of the working folder; raise FileNotFoundError without one."""
        from nbgrader.apps.baseapp import NbGrader
        from nbgrader.coursedir import CourseDirectory

        if not Path(CONFIGURATION).exists():
            raise FileNotFoundError(
                f"No {CONFIGURATION} here: change to the course's folder, or name it in one."
            )
        app = NbGrader(log_level="ERROR")
        app.load_config_file()
        return cls(app, CourseDirectory(parent=app))

    def folder(self, step: str, student: str, exercise: str) -> Path:
        """Return where a step, such as "submitted", of a student's exercise is kept."""
        directory = getattr(self.folders, f"{step}_directory")
        return Path(self.folders.format_path(directory, student, exercise))

    def source(self, exercise: str) -> Path:
        """Return the path of the source notebook; raise FileNotFoundError when it is not there."""
        notebook = self.folder("source", ".", exercise) / f"{exercise}.ipynb"
        if notebook.is_file():
            return notebook
        there = sorted(path.parent.name for path in notebook.parents[1].glob("*/*.ipynb"))
        raise FileNotFoundError(
            f"There is no exercise {exercise!r}; {notebook.parents[1]} has: {', '.join(there)}."
        )

    def extras(self, exercise: str) -> dict[str, bytes]:
        """Return the files beside the source notebook, which take the place of the student's."""
        from nbgrader.utils import find_all_files

        folder = str(self.folder("source", ".", exercise))
        paths = find_all_files(folder, [*self.folders.ignore, "*.ipynb"])
        return {str(Path(path).relative_to(folder)): Path(path).read_bytes() for path in paths}

    def submissions(self, exercise: str) -> dict[str, Path]:
        """Return by student each submission's folder, relative to the folder of all."""
        # Not pathlib's glob, which passes over links to nowhere: a student gets a verdict on them.
        template = str(self.folder("submitted", "\0", exercise))
        before, after = map(glob.escape, template.split("\0"))
        start, end = template.index("\0"), len(template) - template.index("\0") - 1
        return {
            path[start : len(path) - end]: Path(path).relative_to(self.submitted)
            for path in sorted(glob.glob(f"{before}*{after}"))
        }

    def left_out(self, exercise: str) -> list[str]:
        """Return folders, among those of submissions, with notebooks that nobody grades.

        They are named like the exercise, and are not where a submission is.
        """
        taken = {*self.submissions(exercise).values()}
        found = []
        for folder, inner, files in os.walk(self.submitted):  # follows no links
            place = Path(folder).relative_to(self.submitted)
            inner[:] = sorted(inner) if len(place.parts) < DEPTH and place not in taken else []
            notebooks = {name.lower() for name in files if name.lower().endswith(".ipynb")}
            named = exercise in str(place) or f"{exercise}.ipynb".lower() in notebooks
            if named and notebooks and place not in taken:
                found.append(str(place))
        return found[:LISTED]

    @property
    def has_gradebook(self) -> bool:
        """Whether there is a gradebook; to open one would make it."""
        path = self.folders.db_url.removeprefix("sqlite:///")
        return path == self.folders.db_url or Path(path).exists()

    @property
    def submitted(self) -> Path:
        """The folder of all submissions."""
        return Path(self.folders.root) / self.folders.submitted_directory
