# The example step of `keyside quickstart` where there is no Python: a secret in a variable and in a file, shown neither.
set -eu
echo "step: MLFLOW_TRACKING_PASSWORD holds ${#MLFLOW_TRACKING_PASSWORD} characters"

path=$KEYSIDE_FILES/mlflow_credentials
credentials=$(cat "$path")
echo "step: $path holds the credentials of '${credentials%%:*}'"

if [ "${credentials#*:}" = "$MLFLOW_TRACKING_PASSWORD" ]; then
    echo "step: both hold the same password"
else
    echo "step: they differ"
    exit 1
fi
