"""The example step of `keyside quickstart`: finds a secret in a variable and in a file, and shows neither."""

import os
import pathlib
import stat

password = os.environ["MLFLOW_TRACKING_PASSWORD"]
print(f"step: MLFLOW_TRACKING_PASSWORD holds {len(password)} characters")

path = pathlib.Path(os.environ["KEYSIDE_FILES"]) / "mlflow_credentials"
user, _, from_file = path.read_text().partition(":")
mode = stat.S_IMODE(path.stat().st_mode)
print(f"step: {path} holds the credentials of {user!r}, mode {mode:04o}")

print("step: both hold the same password" if from_file == password else "step: they differ")
raise SystemExit(from_file != password)
