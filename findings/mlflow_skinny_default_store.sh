#!/usr/bin/env bash
# mlflow-skinny: its client cannot open the store that it takes by default.
#
# Without MLFLOW_TRACKING_URI the client of a new folder points to sqlite:///mlflow.db, for which
# mlflow-skinny brings no SQLAlchemy; the error speaks of a model registry, and of 'file' as a
# scheme that can be had, which is refused in its turn. With SQLAlchemy and alembic installed beside
# it, the same lines work.
#
# Seen with mlflow-skinny 3.17.2, SQLAlchemy 2.1.9, alembic 1.20.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset MLFLOW_TRACKING_URI MLFLOW_ALLOW_FILE_STORE
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check mlflow-skinny==3.17.2
cat > follow.py <<'PY'
import os
import sys

import mlflow
from mlflow import MlflowClient

if len(sys.argv) > 1:
    os.environ["MLFLOW_TRACKING_URI"] = sys.argv[1]
print("store:", mlflow.get_tracking_uri().replace(os.getcwd(), "."))
try:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("training")).info.run_id
    client.log_metric(run, "loss", 0.5)
    print("logged:", client.get_run(run).data.metrics)
except Exception as error:
    print(f"{type(error).__name__}: {str(error).splitlines()[0][:100]}")
PY
run() { env/bin/python follow.py "$@" 2>/dev/null | sed "s#$folder#.#g"; }
first=$(run)
second=$(run file:store)
env/bin/pip install -q --disable-pip-version-check sqlalchemy==2.1.9 alembic==1.20.1
third=$(run)
printf -- '-- alone\n%s\n-- with a folder as store\n%s\n-- with SQLAlchemy and alembic\n%s\n' "$first" "$second" "$third"
if [[ $first == *"UnsupportedModelRegistryStoreURIException"* && $second == *"MlflowException"* && $third == *"{'loss': 0.5}"* ]]; then
    echo "as described"
else
    echo "changed: the behaviour above is another one now"
    exit 1
fi
